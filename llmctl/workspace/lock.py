"""One writer an artifact. The kernel drops the lock when its holder dies, so a SIGKILL leaves nothing to clean up."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import IO

from llmctl.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: no advisory locks; two writers on one artifact are then not told of each other
    fcntl = None  # type: ignore[assignment]


class Lock:
    """An advisory lock file; `acquire` raises UserError naming the holder when it is taken."""

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock or say who has it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        f = open(self.path, "a+", encoding="utf-8")  # noqa: SIM115 - held until release
        if fcntl is not None:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                f.seek(0)
                holder = f.read().strip()
                f.close()
                raise UserError(
                    f"{self.what} is being made by {_describe(holder)}", fix="wait for it, or stop it"
                ) from None
        f.seek(0)
        f.truncate()
        f.write(json.dumps({"pid": os.getpid(), "since": time.strftime("%H:%M:%S")}))
        f.flush()
        self._file = f

    def release(self) -> None:
        """Give it back; harmless when it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _describe(holder: str) -> str:
    try:
        found = json.loads(holder)
        return f"process {found['pid']} since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
