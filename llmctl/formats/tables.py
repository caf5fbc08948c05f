"""Documents in rows: JSON Lines, Parquet, and data sets of the Hugging Face hub.

A row needs `text` (or `content`), or `html`. `id`, `url`, `date`, `dump`, `language` are taken where they are, at the
top or in a `meta`/`metadata` object as datatrove and dolma write them.
"""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.formats.document import DamageList, Document

_TEXT = ("text", "content", "raw_content")
_HTML = ("html", "raw_html")
_DATE = ("date", "timestamp", "created", "added")


def read_jsonl(path: Path, name: str, damage: DamageList) -> Iterator[Document]:
    """One document a line. Lines end at "\\n" only: texts may hold the other line separators of Unicode."""
    line = 0
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as f:
        lines = iter(f)
        while True:
            line += 1
            try:
                raw = next(lines, None)
            except (EOFError, OSError, zlib.error):
                damage.add(name, f"line {line:,}", "the compressed data is cut or corrupt")
                return
            if raw is None:
                return
            if raw.strip() and (document := _line(raw, line, name, damage)):
                yield document


def _line(raw: bytes, line: int, name: str, damage: DamageList) -> Document | None:
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError) as e:
        damage.add(name, f"line {line:,}", "not UTF-8" if isinstance(e, UnicodeDecodeError) else "not JSON")
        return None
    document = from_row(row, f"{name}#{line}", name) if isinstance(row, dict) else None
    if document is None:
        damage.add(name, f"line {line:,}", "no text: a row needs a string `text`, `content` or `html`")
    return document


def read_parquet(path: Path, name: str, damage: DamageList) -> Iterator[Document]:
    """One document a row. UserError, with the columns there are, where none holds text. Rows without are counted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    broken = (pa.ArrowException, OSError, ValueError, MemoryError)
    try:
        table = pq.ParquetFile(path)
        schema = table.schema_arrow
    except broken as e:
        damage.add(name, "", f"no Parquet file: {_first_line(e)}")
        return
    _check_columns(schema, path)
    row = empty = 0
    for group in range(table.num_row_groups):
        try:
            for batch in table.iter_batches(batch_size=256, row_groups=[group]):
                for values in _values(batch):
                    row += 1
                    document = from_row(values, f"{name}#{row}", name) if values else None
                    if document:
                        yield document
                    elif values is None:
                        damage.add(name, f"row {row:,}", "not UTF-8")
                    else:
                        empty += 1
        except broken as e:
            damage.add(name, f"row group {group}", _first_line(e))
    if empty:
        damage.add(name, "", f"{empty:,} of {row:,} rows have no text")


def _check_columns(schema: Any, path: Path) -> None:
    """UserError where no column can hold text or HTML."""
    import pyarrow.types as types

    there = [f for f in schema if f.name in (*_TEXT, *_HTML)]
    texts = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary, types.is_dictionary)
    if not there:
        raise UserError("no `text` column", str(path), "columns there: " + ", ".join(schema.names))
    if not any(is_text(field.type) for field in there for is_text in (*texts, types.is_string_view)):
        raise UserError(
            f"the column `{there[0].name}` is {there[0].type}, not text", str(path), "name one that is `text`"
        )


def _values(batch: Any) -> Iterator[dict[str, Any] | None]:
    """The rows of a batch; None for one that is not UTF-8, which Parquet's writers do not check."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_hub(name: str, damage: DamageList) -> Iterator[Document]:
    """The rows of `org/data[:config][@split]` on the Hugging Face hub, streamed; the split is `train` unless named."""
    from datasets import load_dataset

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # what it says on stderr is in its exceptions as well
    where, _, split = name.partition("@")
    repo, _, config = where.partition(":")
    rows: Iterator[dict[str, Any]] = iter(())
    number = empty = 0
    while True:
        try:
            if not number:
                rows = iter(load_dataset(repo, config or None, split=split or "train", streaming=True))
            row = next(rows, None)
        except Exception as e:  # datasets raises whatever its readers and its HTTP client raise
            what = f"the hub broke off after {number:,} rows" if number else "cannot read it from the hub"
            raise UserError(f"{what}: {_first_line(e)}", f"hf:{name}", "check the name, or try again") from e
        if row is None:
            break
        number += 1
        if number == 1 and not {*row} & {*_TEXT, *_HTML}:
            raise UserError("the rows have no text", f"hf:{name}", "columns there: " + ", ".join(map(str, row)))
        if document := from_row(row, f"hf:{repo}#{number}", f"hf:{name}"):
            yield document
        else:
            empty += 1
    if empty:
        damage.add(f"hf:{name}", "", f"{empty:,} of {number:,} rows have no text")


def sound(text: str) -> str:
    """`text` without the halves of surrogate pairs that JSON may hold and UTF-8 may not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def from_row(row: Mapping[str, Any], default_id: str, name: str) -> Document | None:
    """A row as a document, or None where it holds no text."""
    inner: Mapping[str, Any] = next((row[k] for k in ("metadata", "meta") if isinstance(row.get(k), Mapping)), {})

    def first(*keys: str) -> str | None:
        values = (source.get(k) for source in (row, inner) for k in keys)
        return next((sound(v if isinstance(v, str) else str(v)) for v in values if v not in (None, "")), None)

    text = next((sound(row[k]) for k in _TEXT if isinstance(row.get(k), str)), None)
    html = None if text is not None else next((row[k] for k in _HTML if isinstance(row.get(k), (str, bytes))), None)
    if text is None and html is None:
        return None
    return Document(
        id=first("id", "uuid") or default_id,
        url=first("url", "source_url") or "",
        text=text,
        html=html.encode("utf-8", "replace") if isinstance(html, str) else html,
        content_type="text/plain" if html is None else "text/html",
        charset="utf-8" if isinstance(html, str) else None,
        date=first(*_DATE) or "",
        dump=first("dump") or "",
        file_path=first("file_path") or name,
        language=first("language", "lang"),
    )
