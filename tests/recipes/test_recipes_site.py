"""A live site becomes a corpus, and is brought up to date later: on real pages, served on this machine."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small import SITE, flags

from llmctl.formats.web import read_documents
from llmctl.workspace import Workspace

pytestmark = pytest.mark.slow
LLMCTL = [sys.executable, "-m", "llmctl.cli.main"]
NOT_CONTENT = ("genindex.html", "_sources/index.rst.txt", "search/", "wiki?action=edit", "manual.pdf", "login")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files with a Last-Modified; `sent` counts whole answers and 304s by status."""

    sent: Counter[int] = Counter()

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        self.sent[int(code)] += 1

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def root(data: Path, tmp_path: Path) -> Path:
    """A folder of 20 real pages and an index that links to them, and to what the recipe leaves out."""
    folder = tmp_path / "site"
    folder.mkdir()
    with gzip.open(data / "web/mozilla_readability_pages.jsonl.gz", "rt") as f:
        for i in range(20):
            (folder / f"{i}.html").write_text(json.loads(f.readline())["html"], encoding="utf-8")
    links = [f"{i}.html" for i in range(20)] + list(NOT_CONTENT)
    (folder / "index.html").write_text("".join(f'<a href="/{link}">{link}</a> ' for link in links))
    return folder


@pytest.fixture
def site(root: Path) -> Iterator[str]:
    """The address of the folder."""
    Handler.sent.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def run(source: str, tmp_path: Path, *sets: str) -> dict[str, Any]:
    command = [*LLMCTL, "run", "site", "-w", str(tmp_path / "w"), "--json"]
    own = [f"crawl.source=[{source}]", "crawl.politeness.contact=me@example.org", *sets]
    done = subprocess.run([*command, *flags(SITE), *flags(own)], text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {s["stage"]: s for s in json.loads(done.stdout)}


def test_a_site_becomes_a_corpus_and_is_brought_up_to_date(site: str, root: Path, tmp_path: Path) -> None:
    steps = run(
        site, tmp_path, "crawl.scope.depth=1"
    )  # the pages link to places on their own sites, which are not here
    assert steps["crawl"]["figures"]["pages"] == 21
    assert 5 < steps["filter"]["headline"]["after"] <= 21
    pages = Workspace(tmp_path / "w").find("site", ["pages"])
    found = {d.url.removeprefix(site) for d in read_documents(pages.path)}
    assert found == {"", *(f"{i}.html" for i in range(20))} and not found & set(NOT_CONTENT)
    (root / "7.html").write_text("<p>" + "A page that is another one now. " * 30)
    (root / "8.html").unlink()
    before = Handler.sent.copy()
    steps = run(site, tmp_path, "crawl.scope.depth=1", "crawl.since=site")
    assert steps["crawl"]["figures"]["recrawl"] == {"new": 0, "changed": 1, "unchanged": 19, "gone": 1}
    assert Handler.sent[304] == 19 and Handler.sent[200] - before[200] == 1
    assert steps["filter"]["headline"]["before"] == 20


def test_the_demo_site(tmp_path: Path) -> None:
    steps = run("demo", tmp_path)
    assert steps["crawl"]["figures"]["pages"] == 60 and steps["filter"]["headline"]["after"] > 40


def test_without_an_address_it_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run([*LLMCTL, "run", "site", "-w", str(tmp_path)], text=True, capture_output=True, timeout=60)
    assert done.returncode == 2 and "source" in done.stderr and "site.yaml:" in done.stderr
