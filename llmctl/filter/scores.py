"""The scores of a corpus: every document that was read, its extracted text, and the value of every rule.

They are what thresholds are changed on afterwards. A row group is the documents of one shard, so files are joined and
divided again without being rewritten row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmctl.filter.decide import Column, Sizes
from llmctl.filter.row import Row

_TEXTS = ("id", "dump", "url", "date", "file_path", "language")
_SIZES = ("bytes_read", "bytes_text", "bytes_clean")


@dataclass
class Scored:
    """Measured documents.

    rows: the fields of FineWeb's row, the extracted text (None where there is none) and `details` (rule -> what a
    number cannot say). values (documents, rules) float64, NaN where a rule does not apply. final: the text as the steps
    left it, where it is at hand. signatures: MinHash's as bytes, None where it was not asked for.
    """

    rows: list[dict[str, Any]]
    values: np.ndarray
    sizes: Sizes
    final: list[str | None]
    signatures: list[bytes | None]

    def table(self, columns: Sequence[Column]) -> pa.Table:
        """As a table: one column a rule."""
        fields: dict[str, Any] = {
            name: [row[name] for row in self.rows] for name in (*_TEXTS, "language_score", "text")
        }
        fields |= {name: getattr(self.sizes, name.removeprefix("bytes_")) for name in _SIZES}
        fields |= {column.name: self.values[:, i] for i, column in enumerate(columns)}
        fields["details"] = [list(row["details"].items()) for row in self.rows]
        fields["signature"] = self.signatures
        return pa.table(fields, schema=schema([c.name for c in columns]))

    @classmethod
    def of(cls, table: pa.Table, columns: Sequence[Column]) -> Scored:
        """Back from a table. A rule that was not measured then (its step was off) is a KeyError."""
        names = (*_TEXTS, "language_score", "text", "details")
        rows = table.select(names).to_pylist()
        for row in rows:
            row["details"] = dict(row["details"] or ())
        return cls(
            rows,
            values_of(table, [column.name for column in columns]),
            Sizes(*(table.column(name).to_numpy() for name in _SIZES)),
            [None] * len(rows),
            table.column("signature").to_pylist(),
        )


class Measuring:
    """Scored documents as they are measured, one after the other."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._values: list[np.ndarray] = []
        self._sizes: list[tuple[int, int, int]] = []
        self._final: list[str | None] = []

    def add(self, row: Row, read: int, text: str | None, values: np.ndarray) -> None:
        """A row behind its last step: its bytes as read, its extracted text, its values."""
        names = (*_TEXTS, "language_score")
        kept = {name: getattr(row, name) for name in names} | {"text": text, "details": row.details}
        self._rows.append(kept)
        self._values.append(values)
        self._sizes.append((read, len(text.encode()) if text else 0, row.size if row.text is not None else 0))
        self._final.append(row.text)

    def done(self, rules: int) -> Scored:
        """All of them."""
        sizes = np.array(self._sizes, dtype=np.int64).reshape(-1, 3)
        values = np.array(self._values, dtype=np.float64).reshape(-1, rules)
        return Scored(self._rows, values, Sizes(*sizes.T), self._final, [None] * len(self._rows))


def schema(rules: Sequence[str]) -> pa.Schema:
    """The table's columns."""
    return pa.schema(
        [
            *((name, pa.string()) for name in _TEXTS),
            ("language_score", pa.float64()),
            ("text", pa.string()),
            *((name, pa.int64()) for name in _SIZES),
            *((name, pa.float64()) for name in rules),
            ("details", pa.map_(pa.string(), pa.string())),
            ("signature", pa.binary()),
        ]
    )


def write(path: Path, table: pa.Table) -> None:
    """One row group."""
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table, row_group_size=max(1, len(table)))


def join(parts: Sequence[Path], path: Path) -> None:
    """The row groups of `parts`, in order, in one file."""
    with pq.ParquetWriter(path, pq.read_schema(parts[0]), compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(part)
            writer.write_table(table, row_group_size=max(1, len(table)))


def groups(path: Path) -> list[int]:
    """Documents in each row group of a file."""
    found = pq.ParquetFile(path).metadata
    return [found.row_group(i).num_rows for i in range(found.num_row_groups)]


def read(path: Path, numbers: Sequence[int]) -> pa.Table:
    """Some row groups of a file."""
    return pq.ParquetFile(path).read_row_groups(list(numbers))


def batches(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a file, a row group at a time."""
    file = pq.ParquetFile(path)
    for i in range(file.metadata.num_row_groups):
        yield file.read_row_group(i, columns=list(columns))


def values_of(table: pa.Table, rules: Sequence[str]) -> np.ndarray:
    """Shape (documents, rules) float64."""
    found = [table.column(name).to_numpy() for name in rules]
    return np.stack(found, axis=1).astype(np.float64) if found else np.empty((len(table), 0))
