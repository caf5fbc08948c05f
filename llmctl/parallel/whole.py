"""Outputs that are there whole or not at all: made under another name, then renamed.

A shard is done when its output exists, so nothing else has to be remembered about which shards are done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmctl.workspace.files import fsync_dir, fsync_file


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Write below the folder it gives; on a clean exit that becomes `path`, on an exception it is removed.

    Two processes at once on one path (an orphan of a killed run, say) do no harm: the first rename wins.
    """
    making = _beside(path)
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        yield making
        for p in sorted(making.rglob("*")):
            if p.is_file():
                fsync_file(p)
        if not path.exists():
            making.rename(path)
            fsync_dir(path.parent)
    finally:
        shutil.rmtree(making, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write the file it names; on a clean exit that becomes `path`, on an exception it is removed."""
    making = _beside(path)
    making.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield making
        fsync_file(making)
        making.replace(path)
        fsync_dir(path.parent)
    finally:
        making.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.making")
