"""Fetching one file over HTTP: resumed where a kill or a broken line left it, checked, there whole or not at all."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from llmctl import __version__
from llmctl.errors import UserError
from llmctl.workspace.files import fsync_dir, fsync_file, sha256_file

try:
    import fcntl
except ImportError:  # Windows: two processes may then fetch the same file at once, and one of them has to do it again
    fcntl = None  # type: ignore[assignment]

_CHUNK = 1 << 20
_TRIES = 3
_SECONDS = 30.0  # without a byte


def cache_folder() -> Path:
    """Where fetched files are kept: `$LLMCTL_CACHE`, else `~/.cache/llmctl`."""
    return Path(os.environ.get("LLMCTL_CACHE") or "~/.cache/llmctl").expanduser()


def fetch(url: str, path: Path, sha256: str) -> Path:
    """`path`, with the file of this digest: as it is there, or fetched from `url`.

    A second process waits for the first. UserError says where to put the file by hand, where it cannot be fetched or is
    another than it should be.
    """
    by_hand = f"download {url} elsewhere and put it at {path}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(path.with_name(f".{path.name}.lock")):
            if not path.is_file():
                _fetch(url, path, sha256, by_hand)
            elif sha256_file(path) != sha256:
                raise UserError("not the file that was published: its SHA-256 is another", str(path), "delete it")
    except (OSError, HTTPException, ValueError) as e:
        raise UserError(f"cannot fetch {url}: {_reason(e)}", fix=by_hand) from e
    return path


def _fetch(url: str, path: Path, sha256: str, by_hand: str) -> None:
    part = path.with_name(f".{path.name}.part")
    for tries_left in reversed(range(_TRIES)):
        try:
            _append(url, part)
            break
        except urllib.error.HTTPError:
            raise
        except (OSError, HTTPException):  # what has come stays; the next try goes on behind it
            if not tries_left:
                raise
    found = sha256_file(part)
    if found != sha256:
        part.unlink()
        raise UserError(f"what came from {url} is not the file that was published (SHA-256 {found})", fix=by_hand)
    fsync_file(part)
    part.replace(path)
    fsync_dir(path.parent)


def _append(url: str, part: Path) -> None:
    """Fetch what `part` lacks. Raises HTTPError, OSError, HTTPException."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"llmctl/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_SECONDS) as answer:
            with open(part, "ab" if answer.status == 206 else "wb") as f:  # 200: the server knows no ranges
                size = answer.headers.get("Content-Length")
                came = 0
                while chunk := answer.read(_CHUNK):
                    f.write(chunk)
                    came += len(chunk)
            if size is not None and came < int(size):
                raise ConnectionError(f"the connection was cut after {came:,} of {int(size):,} bytes")
    except urllib.error.HTTPError as e:
        if e.code != 416:  # "range not satisfiable": it was all there
            raise


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with open(path, "ab") as f:
        if fcntl is not None:
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        error = error.reason if isinstance(error.reason, Exception) else error
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
