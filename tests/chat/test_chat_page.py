"""The page in a browser: asked, corrected, compared, with what it writes read back. Skipped where there is no Chromium.

The browser is driven over its own protocol on two pipes, so no driver has to be installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from chat_tiny import put_model
from test_chat_serve import Running, config

from llmctl.formats.comparisons import read_comparisons
from llmctl.formats.conversations import read_conversations
from llmctl.workspace import Workspace

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or os.name != "posix", reason="no Chromium on this machine"),
]


class Browser:
    """One tab of a headless Chromium."""

    def __init__(self, profile: Path) -> None:
        mine_in, theirs_out = os.pipe()
        theirs_in, mine_out = os.pipe()

        def pipes() -> None:  # Chromium reads from descriptor 3 and writes to 4
            kept_in, kept_out = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(kept_in, 3)
            os.dup2(kept_out, 4)

        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
                 "--disable-dev-shm-usage", f"--user-data-dir={profile}"]  # fmt: skip
        assert CHROMIUM is not None
        self.process = subprocess.Popen(
            [CHROMIUM, *flags, "about:blank"], preexec_fn=pipes, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._read, self._write, self._count, self.errors = os.fdopen(mine_in, "rb"), mine_out, 0, []
        self._buffer = b""
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Runtime.enable")
        self.call("Page.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        sent = {"id": self._count, "method": method, "params": params}
        if self._session:
            sent["sessionId"] = self._session
        os.write(self._write, json.dumps(sent).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                got = os.read(self._read.fileno(), 65536)
                assert got, "the browser has ended"
                self._buffer += got
            data, _, self._buffer = self._buffer.partition(b"\0")
            found = json.loads(data)
            if found.get("method") == "Runtime.exceptionThrown":
                self.errors.append(found["params"]["exceptionDetails"])
            if found.get("id") == self._count:
                assert "error" not in found, found
                return dict(found["result"])

    def run(self, script: str) -> Any:
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 20) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(AssertionError):  # the page is still on its way
                if found := self.run(script):
                    return found
            time.sleep(0.05)
        raise AssertionError(f"never true: {script}\n{self.run('document.body.innerText')}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._read.close()
        os.close(self._write)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


def say(browser: Browser, text: str, button: str = "send") -> None:
    browser.run(
        f"document.getElementById('said').value = {json.dumps(text)}; document.getElementById('{button}').click()"
    )


def test_a_person_talks_corrects_and_compares(browser: Browser, workspace: Workspace) -> None:
    put_model(workspace, "tiny")
    server = Running(workspace, config(max_new_tokens=12, temperature=1.0), key="secret")
    try:
        browser.call("Page.navigate", url=f"{server.url}/")
        browser.until("document.getElementById('status').textContent.includes('key is missing')")
        browser.run("const k = document.getElementById('key'); k.value = 'secret'; k.onchange()")
        browser.until("document.getElementById('name').textContent === 'tiny'")

        forged = "<img src=x onerror='window.broken = 1'>Hello"
        say(browser, forged)
        browser.until(
            "document.querySelector('.correct') && document.getElementById('status').textContent.includes('tokens/s')"
        )
        assert browser.run("document.querySelector('.user .text').textContent") == forged
        assert browser.run("window.broken === undefined && document.querySelector('main img') === null")

        browser.run("document.querySelector('.correct').click()")
        browser.run(
            "document.querySelector('.right').value = 'Hello, friend.'; document.querySelector('.keep').click()"
        )
        browser.until("document.getElementById('status').textContent.includes('conversations/corrections (1)')")
        assert browser.run("document.querySelector('.assistant .text').textContent") == "Hello, friend."

        say(browser, "What is 12?", "compare")
        browser.until("document.querySelectorAll('.choose').length === 3")
        pair = browser.run("[...document.querySelectorAll('.pair .text')].map(e => e.textContent.trim())")
        browser.run("document.querySelectorAll('.choose')[1].click()")
        browser.until("document.getElementById('status').textContent.includes('comparisons/choices (1)')")
        assert browser.run("document.querySelectorAll('.pair').length") == 0 and not browser.errors
    finally:
        server.close()
    (row,) = read_conversations(workspace.find("corrections").path).rows
    assert [m["content"] for m in row["messages"]] == [forged, "Hello, friend."]
    (ranked,) = read_comparisons(workspace.find("choices").path).rows
    assert [m["content"] for m in ranked["prompt"]] == [forged, "Hello, friend.", "What is 12?"]
    assert (ranked["responses"], ranked["ranking"]) == (pair, [1, 0])
