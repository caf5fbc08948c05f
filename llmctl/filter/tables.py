"""The Parquet tables: FineWeb's row for what is kept, and the reason beside what is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

KEPT = pa.schema(
    [
        *((name, pa.string()) for name in ("text", "id", "dump", "url", "date", "file_path", "language")),
        ("language_score", pa.float64()),
        ("token_count", pa.int64()),
    ]
)
DROPPED = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("rule", pa.string()),
        ("rules", pa.list_(pa.string())),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("detail", pa.string()),
        ("text", pa.string()),
    ]
)
_ROWS = 1000  # a row group: small enough to hold one in memory, large enough to compress


class TableWriter:
    """Rows as dicts into one zstd Parquet file, a row group at a time, so that memory stays flat."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self.count = 0

    def add(self, row: dict[str, Any]) -> None:
        """One more row."""
        self._rows.append(row)
        self.count += 1
        if len(self._rows) >= _ROWS:
            self._flush()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, as dicts."""
    for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS):
        yield from batch.to_pylist()


def read_column(path: Path, name: str) -> list[Any]:
    """One column of a Parquet file."""
    return pq.read_table(path, columns=[name]).column(0).to_pylist()  # type: ignore[no-any-return]
