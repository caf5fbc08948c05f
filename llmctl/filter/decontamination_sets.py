"""Reading evaluation sets: what is an item, and which of its texts are looked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError, nearest
from llmctl.formats.json_rows import SUFFIXES, Skipped, read_rows

_TEXTS = (".txt", ".md")
_PARAGRAPHS = re.compile(r"\n\s*\n")


def items_of(path: Path, fields: Sequence[str]) -> Iterator[list[str]]:
    """The texts of every item of a file, or of the files of a folder in the order of their names.

    An item is a row (JSON Lines, Parquet) or a paragraph (text). Its texts are each of its fields that holds text, and
    all of them joined. UserError names a file or row that cannot be read: a set that is half looked for is not clean.
    """
    for file in _files(path):
        if file.name.endswith(_TEXTS):
            text = file.read_text(encoding="utf-8", errors="replace")
            yield from ([part] for part in _PARAGRAPHS.split(text) if part.strip())
            continue
        for row in _parquet(file) if file.suffix == ".parquet" else _json(file):
            yield _texts(row, fields, file)


def _files(path: Path) -> list[Path]:
    known = (*SUFFIXES, ".parquet", *_TEXTS)
    if path.is_file():
        found = [path]
    else:
        data = path / "data" if (path / "manifest.json").is_file() and (path / "data").is_dir() else path
        found = sorted(p for p in data.rglob("*") if p.name.endswith(known) and not p.name.startswith((".", "_")))
        found = [p for p in found if p.name != "manifest.json"]
    if not found or not found[0].name.endswith(known):
        raise UserError("no evaluation set to read", str(path), f"formats: {', '.join(known)}")
    return found


def _json(path: Path) -> Iterator[Mapping[str, Any]]:
    for row in read_rows(path):
        if isinstance(row, Skipped):
            raise UserError(f"a row that cannot be read: {row.why}", f"{row.file}:{row.line}", "mend or remove it")
        yield row.value


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as e:
        raise UserError(f"no Parquet file: {str(e).splitlines()[0]}", str(path), "get it again") from e


def _texts(row: Mapping[str, Any], fields: Sequence[str], path: Path) -> list[str]:
    for name in fields:
        if name not in row:
            raise UserError(
                f"no field {name!r} in a row{nearest(name, row)}", str(path), f"there are: {', '.join(row)}"
            )
    found = [text for name in (fields or row) for text in _strings(row[name])]
    return [*found, " ".join(found)] if len(found) > 1 else found


def _strings(value: Any) -> Iterator[str]:
    """Every string in a value of JSON, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)
