"""`llmctl crawl demo`: a web site on this machine, for a first run without network.

The site is served by a child process, because it imports the whole standard library. It is crawled over HTTP like any
other. Its name is fixed and its port is not, so that a crawl that was killed finds its addresses again.
"""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType

# RFC 6761: names below .localhost mean this machine.
ADDRESS = "http://pydoc.localhost/"


class Demo:
    """The running demo site, as a context manager; `port` is where it listens on 127.0.0.1."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Demo:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "llmctl.crawl.demo_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the crawl; the site goes down after it
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.strip().isdigit():
            _, error = self._process.communicate(timeout=10)
            raise RuntimeError(f"the demo site did not start: {error.strip()[-2000:]}")
        self.port = int(line)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()
