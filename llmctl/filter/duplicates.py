"""The second pass, over the fingerprints of all shards: which documents go because an earlier one says the same.

One bucket of signatures is in memory at a time: 64 bytes a document, and as much again while it is sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from llmctl.filter.clusters import Clusters, equal_pairs
from llmctl.filter.config import FilterConfig
from llmctl.filter.tables import read_column


@dataclass(frozen=True, order=True)
class Removal:
    """A row of a shard that goes, by which step, and the id of the document that stays in its place."""

    row: int
    step: str
    similarity: float
    stays: str


def find_duplicates(shards: Sequence[Path], config: FilterConfig) -> list[list[Removal]]:
    """The removals of every shard, in the order of its rows. Documents are compared across all of `shards`, in
    order.
    """
    corpus = _Corpus(shards)
    gone = np.zeros(corpus.size, dtype=bool)
    removed: list[list[Removal]] = [[] for _ in shards]
    if config.exact.enabled:
        corpus.note(_exact(corpus, gone), "exact", removed)
    if config.minhash.enabled:
        corpus.note(_near(corpus, gone, config.minhash.buckets), "minhash", removed)
    return [sorted(rows) for rows in removed]


Found = list[tuple[int, int, float]]  # (the document that goes, the one that stays, similarity), by global index


class _Corpus:
    """The kept documents of all shards under one numbering."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = shards
        self.sizes = [len(np.load(shard / "digests.npy", mmap_mode="r")) for shard in shards]
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        self.size = int(self.starts[-1])

    def place(self, index: int) -> tuple[int, int]:
        """(shard, row in it)."""
        shard = int(np.searchsorted(self.starts, index, side="right")) - 1
        return shard, index - int(self.starts[shard])

    def note(self, found: Found, step: str, removed: list[list[Removal]]) -> None:
        """Put what was found into the lists of the shards."""
        for goes, stays, similarity in sorted(found, key=lambda f: f[1]):  # ids are read a shard at a time
            shard, row = self.place(goes)
            first_shard, first_row = self.place(stays)
            removed[shard].append(Removal(row, step, similarity, _ids(self.shards[first_shard])[first_row]))


def _exact(corpus: _Corpus, gone: np.ndarray) -> Found:
    """Equal digests; marks what goes in `gone` (documents,)."""
    digests = np.concatenate([np.load(shard / "digests.npy") for shard in corpus.shards])
    clusters = Clusters(corpus.size)
    for i, j in equal_pairs(digests):
        clusters.link(i, j)
        gone[j] = True
    return [(int(i), clusters.first(int(i)), 1.0) for i in np.flatnonzero(gone)]


def _near(corpus: _Corpus, gone: np.ndarray, buckets: int) -> Found:
    """Signatures that agree in a bucket, among those not `gone` (documents,)."""
    rows = [np.load(shard / "signed_rows.npy") for shard in corpus.shards]
    indices = np.concatenate([r + start for r, start in zip(rows, corpus.starts, strict=False)])
    here = ~gone[indices]
    indices = indices[here]
    clusters, linked = Clusters(len(indices)), set[int]()
    for bucket in range(buckets):
        keys = np.concatenate([np.load(s / "signatures.npy", mmap_mode="r")[:, bucket] for s in corpus.shards])[here]
        for i, j in equal_pairs(keys):
            clusters.link(i, j)
            linked |= {i, j}
    pairs = [(int(indices[i]), int(indices[clusters.first(i)])) for i in sorted(linked) if clusters.first(i) != i]
    return [(i, j, _similarity(corpus, i, j)) for i, j in pairs]


def _similarity(corpus: _Corpus, i: int, j: int) -> float:
    """The estimate of the Jaccard similarity: the fraction of equal values in two signatures."""
    return float((_signature(corpus, i) == _signature(corpus, j)).mean())


def _signature(corpus: _Corpus, index: int) -> np.ndarray:
    shard, row = corpus.place(index)
    rows, signatures = _signatures(corpus.shards[shard])
    found: np.ndarray = signatures[int(np.searchsorted(rows, row))]
    return found


@lru_cache(maxsize=64)  # a memory map holds a file open
def _signatures(shard: Path) -> tuple[np.ndarray, np.ndarray]:
    return np.load(shard / "signed_rows.npy"), np.load(shard / "signatures.npy", mmap_mode="r")


@lru_cache(maxsize=4)
def _ids(shard: Path) -> list[str]:
    return read_column(shard / "kept.parquet", "id")
