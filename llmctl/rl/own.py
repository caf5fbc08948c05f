"""A reward of a person's own, `module:function`, called in a process of its own: it cannot take training down."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import llmctl
from llmctl.errors import UserError

_START = 120.0  # seconds for importing the module: it may load a model
_HANGS = 3  # in a row, after which waiting for more would be waiting for ever


class OwnReward:
    """Calls the function on rows (dicts of JSON values). A context manager; the process starts with the first call.

    `problems` has, for the newest call, one line for each row that got no number.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.name, self.timeout = name, timeout
        self.problems: list[str] = []
        self.where = ""  # file and line of a problem
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def __enter__(self) -> OwnReward:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __call__(self, rows: list[dict[str, Any]]) -> list[float | None]:
        """A number for each row, None where there is none. UserError where no row gets one, or it hangs on and on."""
        found = self.values(rows)
        if all(value is None for value in found):
            self.refuse(self.problems, len(rows))
        return found

    def values(self, rows: list[dict[str, Any]]) -> list[float | None]:
        """The same, where no row needs to get one."""
        self.problems, hangs = [], 0
        found: list[float | None] = []
        for row in rows:
            reply = self._ask(row)
            hangs = hangs + 1 if "hung" in reply else 0
            if hangs >= _HANGS:
                raise UserError(
                    f"your reward {self.name} took more than {self.timeout:g} s for {_HANGS} replies in a row",
                    "function",
                    "mend it, or raise rewards.timeout; the same command goes on from the last checkpoint",
                )
            found.append(reply.get("value"))
            if "problem" in reply:
                self.problems.append(reply["problem"])
                self.where = reply.get("where", "") or self.where
        return found

    def refuse(self, problems: list[str], rows: int) -> None:
        """UserError that says what the first of the problems was, where there is one."""
        if problems:
            raise UserError(
                f"your reward {self.name} {problems[0]}, and has no number for any of {rows:,} replies",
                self.where or "function",
                "mend it; the same command goes on from the last checkpoint",
            )

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process, self._buffer = None, b""

    def _ask(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(row).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._line(self.timeout)
        except BrokenPipeError:
            answer = b""
        if answer is None:
            self.close()
            return {"hung": True, "problem": f"took more than {self.timeout:g} s"}
        if not answer:
            self.close()
            return {"problem": "ended its process"}
        return dict(json.loads(answer))

    def _start(self) -> None:
        path = os.pathsep.join(filter(None, [str(Path(llmctl.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llmctl.rl.own_worker", self.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        first = json.loads(self._line(_START) or b'{"fatal": ["it ended while it was imported", "function", ""]}')
        if "fatal" in first:
            self.close()
            raise UserError(*first["fatal"])

    def _line(self, timeout: float) -> bytes | None:
        """The next line of the process; empty where it has ended, None where none comes in time."""
        assert self._process is not None and self._process.stdout is not None
        until = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, until - time.monotonic())):
                    return None
                more = os.read(self._process.stdout.fileno(), 1 << 16)
                if not more:
                    return b""
                self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line
