"""Equal keys among very many documents, in little memory: sorted on disk, a partition at a time.

Each document has a key of 128 bits in each of several bands. One pass over the corpus appends (key, document) to the
partition that the key belongs to, a file small enough to be sorted in memory; equal keys meet in one partition.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

MEMORY = 256 << 20
"""Bytes that a partition may take while it is sorted."""
RECORD = 24
"""Bytes of a document in a band, on disk: two words of key, one of number."""
_WAITING = 32 << 20  # bytes gathered before they are written: a piece for each of very many files
_SORTING = 4  # times the bytes on disk are in memory: the records, their order, the sorted keys, the links


class Bands:
    """The records of `count` bands in files of a new `folder`, each band in as many partitions, by key, as it takes to
    sort one of `documents` records in `memory` bytes.
    """

    def __init__(self, folder: Path, count: int, documents: int, memory: int = MEMORY) -> None:
        folder.mkdir(parents=True)
        self.folder, self.count = folder, count
        self.partitions = -(-documents * RECORD * _SORTING // memory) or 1
        self._waiting: list[np.ndarray] = []

    def add(self, keys: np.ndarray, documents: np.ndarray) -> None:
        """Note the keys, (documents, bands, 2) uint64, of `documents` (documents,) int64."""
        numbers = np.broadcast_to(documents.astype(np.uint64)[:, None, None], (len(documents), self.count, 1))
        self._waiting.append(np.concatenate([keys, numbers], axis=2))
        if sum(map(len, self._waiting)) * self.count * RECORD > _WAITING:
            self._write()

    def _write(self) -> None:
        records = np.concatenate(self._waiting or [np.zeros((0, self.count, 3), dtype=np.uint64)])
        self._waiting = []
        for band in range(self.count):
            part = (records[:, band, 0] >> np.uint64(32)) * np.uint64(self.partitions) >> np.uint64(32)
            order = np.argsort(part, kind="stable")
            bounds = np.searchsorted(part[order], np.arange(self.partitions + 1))
            for i, (begin, end) in enumerate(pairwise(bounds.tolist())):
                if begin < end:
                    with self._path(band, i).open("ab") as file:
                        file.write(records[order[begin:end], band].tobytes())

    def links(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What connects every group of documents with an equal key, partition by partition: see `equal`. The files are
        deleted as they are read, the folder with the last.
        """
        self._write()
        for band in range(self.count):
            for i in range(self.partitions):
                path = self._path(band, i)
                if path.exists():
                    records = np.fromfile(path, dtype=np.uint64).reshape(-1, RECORD // 8)
                    path.unlink()
                    yield equal(records[:, :2], records[:, 2].astype(np.int64))
        self.folder.rmdir()

    def _path(self, band: int, partition: int) -> Path:
        return self.folder / f"{band:04d}-{partition:06d}.keys"


def equal(keys: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(leaders, members), both (links,) int64: one document of each group of equal `keys` (documents, 2) uint64, with
    each other document of the group.
    """
    order = np.argsort(keys[:, 0])
    same = keys[order[1:]] == keys[order[:-1]]
    if (same[:, 0] & ~same[:, 1]).any():  # one word of the key does not tell them apart
        order = np.lexsort(keys.T)
        same = keys[order[1:]] == keys[order[:-1]]
    ordered, follows = documents[order], np.append(False, same.all(axis=1))[: len(order)]
    begins = np.flatnonzero(~follows)
    leader = np.repeat(ordered[begins], np.diff(np.append(begins, len(order))))
    return leader[follows], ordered[follows]


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """(documents, bands, hashes) uint64 to keys (documents, bands, 2) uint64, equal where all hashes are.

    Multilinear hashing (Lemire and Kaser 2014, arXiv:1202.4961) of the hashes' 32-bit halves by two sets of random
    factors: two different bands meet in both words with a probability of at most 2^-66, so of the 10^17 pairs that
    150 million documents make in 14 bands 0.002 are expected to.
    """
    halves = np.ascontiguousarray(signatures).view(np.uint32).astype(np.uint64)
    factors = np.random.RandomState(2).randint(0, 1 << 64, dtype=np.uint64, size=(halves.shape[2], 2))
    found: np.ndarray = halves @ factors
    return found
