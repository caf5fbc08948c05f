"""Which rows of each shard go as duplicates: in four files a step, so that however many there are, a shard's are read
in one piece and nothing is held in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

STEPS = ("exact", "minhash")
_RECORD = np.dtype([("row", "<i8"), ("head", "<i8"), ("similarity", "<f8"), ("cluster", "<i8")])


@dataclass(frozen=True, order=True)
class Removal:
    """A row of a shard that goes, by which step, the id of the document that stays in its place, how similar the two
    are, and how many documents the cluster has, the one that stays among them.
    """

    row: int
    step: str
    similarity: float
    stays: str
    cluster: int = 2


class Removals(Sequence[list[Removal]]):
    """`removals[i]`: the removals of shard `i`, in the order of its rows, read from `folder`. May be sent to another
    process: nothing but the name of the folder is held in memory.
    """

    def __init__(self, folder: Path, shards: int) -> None:
        self.folder, self.shards = folder, shards

    def __len__(self) -> int:
        return self.shards

    @overload
    def __getitem__(self, shard: int) -> list[Removal]: ...
    @overload
    def __getitem__(self, shard: slice) -> list[list[Removal]]: ...
    def __getitem__(self, shard: int | slice) -> list[Removal] | list[list[Removal]]:
        numbers = range(self.shards)[shard]
        return [self._of(i) for i in numbers] if isinstance(numbers, range) else self._of(numbers)

    @property
    def figures(self) -> dict[str, dict[str, int]]:
        """Step -> documents removed, clusters (of two and more), documents in the largest."""
        paths = ((step, self.folder / step / "figures.json") for step in STEPS)
        return {step: json.loads(path.read_text(encoding="utf-8")) for step, path in paths if path.exists()}

    def _of(self, shard: int) -> list[Removal]:
        return sorted(removal for step in STEPS if step in self.figures for removal in self._read(step, shard))

    def _read(self, step: str, shard: int) -> list[Removal]:
        folder = self.folder / step
        begin, end = np.load(folder / "shards.npy", mmap_mode="r")[shard : shard + 2].tolist()
        at = begin * _RECORD.itemsize
        found = np.fromfile(folder / "records", dtype=_RECORD, count=end - begin, offset=at)
        with Pieces(folder / "ids") as ids:
            stays = ids.read(found["head"])
        return [
            Removal(row, step, similarity, head_id.decode(), cluster)
            for (row, _, similarity, cluster), head_id in zip(found.tolist(), stays, strict=True)
        ]


class RemovalsWriter:
    """Writes the removals of one step, shard by shard; `ids` (of the documents that stay) first."""

    def __init__(self, folder: Path, step: str) -> None:
        self._folder = folder / step
        self._folder.mkdir(parents=True)
        self.ids = Pieces(self._folder / "ids")
        self._ends = [0]

    def add(self, row: np.ndarray, head: np.ndarray, similarity: np.ndarray, cluster: np.ndarray) -> None:
        """The next shard's: rows, the number in `ids` of who stays, how similar, documents in the cluster."""
        records = np.empty(len(row), dtype=_RECORD)
        for name, column in zip(_RECORD.names or (), (row, head, similarity, cluster), strict=True):
            records[name] = column
        with (self._folder / "records").open("ab") as file:
            file.write(records.tobytes())
        self._ends.append(self._ends[-1] + len(row))

    def close(self, **figures: Any) -> None:
        """All shards are written."""
        self.ids.close()
        np.save(self._folder / "shards.npy", np.array(self._ends, dtype=np.int64))
        (self._folder / "figures.json").write_text(json.dumps(figures), encoding="utf-8")


class Pieces:
    """Numbered byte strings in a folder: one file of them, appended in order, read in any, and one of their ends."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._pieces, self._ends = (folder / "pieces").open("ab+"), (folder / "ends").open("ab+")
        self._size = self._pieces.seek(0, os.SEEK_END)

    def append(self, pieces: Sequence[bytes]) -> None:
        """More of them, numbered on."""
        ends = self._size + np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
        self._pieces.write(b"".join(pieces))
        self._ends.write(ends.tobytes())
        self._size = int(ends[-1])

    def read(self, numbers: np.ndarray) -> list[bytes]:
        """Those with these numbers."""
        self._pieces.flush()
        self._ends.flush()
        return [self._read(number) for number in numbers.tolist()]

    def close(self) -> None:
        """No more of them."""
        self._pieces.close()
        self._ends.close()

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, number: int) -> bytes:
        around = os.pread(self._ends.fileno(), 16 if number else 8, max(number - 1, 0) * 8)
        *begin, end = np.frombuffer(around, dtype=np.int64).tolist()
        return os.pread(self._pieces.fileno(), end - sum(begin), sum(begin))
