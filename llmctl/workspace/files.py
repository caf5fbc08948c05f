"""Writing that survives a kill, and digests of what was written.

A file is written beside its place, flushed to the disk and renamed, so a reader sees the old one or the new one, never
half of either (POSIX rename is atomic within a file system).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any


def fsync_dir(path: Path) -> None:
    """Make a rename inside `path` durable; a no-op where directories cannot be opened (Windows)."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Flush one file's bytes to the disk."""
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(tmp, "wb") as f:
        f.write(data.encode() if isinstance(data, str) else data)
        f.flush()
        os.fsync(f.fileno())
    tmp.replace(path)
    fsync_dir(path.parent)


def is_torn(path: Path) -> bool:
    """Whether `path` is what a kill in the middle of `write_atomic` left behind."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def json_safe(value: Any) -> Any:
    """`value` with everything JSON cannot say turned into what it can: NaN and infinity become null, paths strings."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): json_safe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [json_safe(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "size", 2) == 1:  # numpy scalars
        return json_safe(value.item())
    return value


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_atomic(path, json.dumps(json_safe(value), indent=2, ensure_ascii=False) + "\n")


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            h.update(chunk)
    return h.hexdigest()


def sha256_tree(path: Path) -> str:
    """One digest for a file, or for a folder: its relative paths and their contents, in order."""
    if path.is_file():
        return sha256_file(path)
    h = hashlib.sha256()
    for p in sorted(p for p in path.rglob("*") if p.is_file()):
        h.update(f"{p.relative_to(path).as_posix()}\0{sha256_file(p)}\n".encode())
    return h.hexdigest()


def sha256_json(value: Any) -> str:
    """The digest of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(json_safe(value), sort_keys=True, ensure_ascii=False).encode()).hexdigest()
