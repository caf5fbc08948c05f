"""Rows of JSON from files that somebody else wrote: JSON Lines, an array, plain or gzipped, one file or a folder.

A `.txt` file of conversations in a model's own markup gives a row {"text": ...} for each. Parquet files and data sets
of the Hugging Face hub (`hf:org/name[:config][@split]`) give theirs as they are.

Nothing here raises on a bad row: it is named by file and line and handed on among what was skipped.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmctl.errors import UserError
from llmctl.formats.markup import split_file

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".ndjson", ".parquet")


class Row(NamedTuple):
    """One JSON object, and where it stands: the line of a JSON Lines file, the place (from 1) in an array."""

    file: str
    line: int
    value: dict[str, Any]


class Skipped(NamedTuple):
    """A row that could not be used, and why."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.why}"


def read_rows(path: Path, split: str = "train") -> Iterator[Row | Skipped]:
    """Every row of `path`. Of a folder: its `<split>.jsonl` or, where there is none, every JSON file in it.

    UserError where there is no such file, or nothing in the folder that could be read.
    """
    if str(path).startswith("hf:"):
        yield from _hub_rows(str(path), split)
        return
    for file in _files(path, split):
        name = str(file) if file == path else file.relative_to(path).as_posix()
        yield from _file_rows(file, name)


def _files(path: Path, split: str) -> list[Path]:
    if not path.exists():
        raise UserError("no such file or folder", str(path), "check the path")
    if path.is_file():
        return [path]
    if (path / f"{split}.jsonl").is_file():
        return [path / f"{split}.jsonl"]
    if (path / "manifest.json").is_file():
        raise UserError(f"it has no {split}.jsonl", str(path), "make it again, or give another")
    found = [p for p in sorted(path.iterdir()) if p.name.endswith(SUFFIXES)]
    if not found:
        raise UserError("no file of rows in this folder", str(path), "it should hold " + ", ".join(SUFFIXES))
    return found


def _file_rows(path: Path, name: str) -> Iterator[Row | Skipped]:
    """Line by line; where the file begins with "[" it is one array, and read whole."""
    number = 0
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, name)
        return
    try:
        if path.suffix == ".txt":
            for number, piece in split_file(path.read_bytes().decode("utf-8-sig")):
                yield Row(name, number, {"text": piece})
            return
        with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as f:
            first = f.readline()
            if first.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
                yield from _array(first + f.read(), name)
                return
            f.seek(0)
            for number, line in enumerate(f, 1):
                if line.strip():
                    yield _parsed(line, name, number)
    except UnicodeDecodeError as e:
        yield Skipped(name, 1, _reason(e))
    except (EOFError, gzip.BadGzipFile, zlib.error) as e:
        yield Skipped(name, number + 1, f"the compressed file is damaged from here on: {e}")
    except OSError as e:
        yield Skipped(name, number + 1, f"cannot be read from here on: {e.strerror or e}")


def _parquet_rows(path: Path, name: str) -> Iterator[Row | Skipped]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            for value in batch.to_pylist():
                number += 1
                yield Row(name, number, value)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
        yield Skipped(name, number + 1, f"the file is damaged from here on: {str(e).splitlines()[0]}")


def _hub_rows(name: str, split: str) -> Iterator[Row]:
    """Streamed. UserError where there is no such data set, or the hub cannot be reached."""
    from datasets import load_dataset

    where, _, named = name.removeprefix("hf:").partition("@")
    repo, _, config = where.partition(":")
    try:
        rows = load_dataset(repo, config or None, split=named or split, streaming=True)
        for number, value in enumerate(rows, 1):
            yield Row(name, number, dict(value))
    except Exception as e:  # datasets raises whatever its readers and its HTTP client raise
        raise UserError(f"cannot read it from the hub: {str(e).splitlines()[0]}", name, "check the name") from e


def _array(raw: bytes, name: str) -> Iterator[Row | Skipped]:
    try:
        found = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as e:
        yield Skipped(name, getattr(e, "lineno", 1), f"the array is not JSON: {_reason(e)}")
        return
    for number, value in enumerate(found, 1):
        yield _checked(value, name, number)


def _parsed(line: bytes, name: str, number: int) -> Row | Skipped:
    try:
        return _checked(json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8")), name, number)
    except (ValueError, RecursionError) as e:
        return Skipped(name, number, f"not JSON: {_reason(e)}")


def _checked(value: Any, name: str, number: int) -> Row | Skipped:
    if isinstance(value, dict):
        return Row(name, number, value)
    return Skipped(name, number, f"a {type(value).__name__}, not an object")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)
