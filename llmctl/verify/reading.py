"""Reading problem sets that others published: JSON lines, plain or gzipped, each row checked when it is used."""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.verify.item import held_out


def side(file: str, heldout: bool, *required: str) -> list[dict[str, Any]]:
    """The rows of `file` that are (not) held out, by a hash of their first required key, the question.

    UserError where the file is missing, empty, or a row lacks one of the `required` keys.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError("there is no such file of problems", file, "download the set and give its path")
    rows = _rows(path, path.stat().st_mtime_ns, required)[heldout]
    if not rows:
        raise UserError(f"the file has no {'held-out' if heldout else 'training'} problems", file)
    return rows


@lru_cache(maxsize=8)
def _rows(path: Path, _: int, required: tuple[str, ...]) -> dict[bool, list[dict[str, Any]]]:
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    # Lines end in "\n" only: texts may contain U+2028, at which str.splitlines would cut.
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                missing = [key for key in required if not isinstance(row[key], (str, list))]
            except (ValueError, KeyError, TypeError) as e:
                raise UserError(f"it is no problem: {e!r}", f"{path}:{number}", _fix(required)) from e
            if missing:
                raise UserError(f"{missing[0]!r} is no text", f"{path}:{number}", _fix(required))
            found[held_out(str(row[required[0]]))].append(row)
    return found


def _fix(required: tuple[str, ...]) -> str:
    return f"a row needs {', '.join(required)}"
