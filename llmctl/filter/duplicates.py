"""The second pass, over the fingerprints of all shards: which documents go because an earlier one says the same.

Memory: 13 bytes a document (its parent in the union-find, whether it is gone, the size of its cluster) and 8 a
cluster, besides 0.3 GB at most for sorting and reading. Everything else is on disk: the keys are sorted there
(`bands`), 24 bytes a document and bucket for a while, and the removals stay there (`removals`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from llmctl.filter.bands import MEMORY, Bands, band_keys
from llmctl.filter.clusters import Clusters
from llmctl.filter.config import FilterConfig
from llmctl.filter.removals import Pieces, Removal, Removals, RemovalsWriter
from llmctl.filter.tables import read_column

__all__ = ["Removal", "Removals", "find_duplicates"]

_ROWS = 1 << 14  # documents at once: 15 MB of signatures
Keyed = Iterator[tuple[np.ndarray, np.ndarray]]  # (keys (documents, bands, 2) uint64, documents), a part at a time


def find_duplicates(shards: Sequence[Path], config: FilterConfig, scratch: Path, memory: int = MEMORY) -> Removals:
    """The removals of every shard. Documents are compared across all of `shards`, in order, and the first of equal or
    similar ones stays. The folder `scratch` is made anew, and holds the removals. Sorting takes `memory` bytes; the
    result does not depend on it.
    """
    if scratch.exists():
        shutil.rmtree(scratch)
    corpus = _Corpus(shards)
    removals = Removals(scratch / "removed", len(shards))
    gone = np.zeros(corpus.size, dtype=bool)
    if config.exact.enabled:
        first = _clusters(corpus.digests(), Bands(scratch / "bands", 1, corpus.size, memory), corpus.size)
        gone = np.concatenate([part != np.arange(at, at + len(part)) for at, part in _parts(first)] or [gone])
        _Notes(corpus, first, scratch).write(RemovalsWriter(removals.folder, "exact"), compare=False)
        del first
    if config.minhash.enabled:
        bands = Bands(scratch / "bands", config.minhash.buckets, corpus.size, memory)
        first = _clusters(corpus.signature_bands(gone), bands, corpus.size)
        _Notes(corpus, first, scratch).write(RemovalsWriter(removals.folder, "minhash"), compare=True)
    return removals


def _clusters(keyed: Keyed, bands: Bands, size: int) -> np.ndarray:
    """(documents,) int64: for each document the first of its cluster, itself where it is in none."""
    for keys, documents in keyed:
        bands.add(keys, documents)
    clusters = Clusters(size)
    for leaders, members in bands.links():
        clusters.link(leaders, members)
    return clusters.firsts()


def _parts(of_documents: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """An array a part at a time, each with where it begins: what is worked out from a part takes little memory."""
    for at in range(0, len(of_documents), _ROWS):
        yield at, of_documents[at : at + _ROWS]


class _Corpus:
    """The kept documents of all shards under one numbering."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = shards
        sizes = [len(np.load(shard / "digests.npy", mmap_mode="r")) for shard in shards]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.size = int(self.starts[-1])

    def digests(self) -> Keyed:
        """The digests of all texts, as one band."""
        for start, shard in zip(self.starts, self.shards, strict=False):
            found = np.load(shard / "digests.npy")
            yield found[:, None], start + np.arange(len(found))

    def signature_bands(self, gone: np.ndarray) -> Keyed:
        """The bands of the signatures of all documents that have one and are not `gone` (documents,)."""
        for start, shard in zip(self.starts, self.shards, strict=False):
            documents = start + np.load(shard / "signed_rows.npy")
            signatures = np.load(shard / "signatures.npy", mmap_mode="r")
            for at in range(0, len(documents), _ROWS):
                part = documents[at : at + _ROWS]
                here = ~gone[part]
                yield band_keys(signatures[at : at + _ROWS][here]), part[here]

    def signatures(self, shard: int, rows: np.ndarray) -> np.ndarray:
        """Those of some rows of a shard, (rows, values) uint64. All of them have one."""
        signed = np.load(self.shards[shard] / "signed_rows.npy")
        found = np.load(self.shards[shard] / "signatures.npy", mmap_mode="r")[np.searchsorted(signed, rows)]
        return found.reshape(len(rows), -1)

    def ids(self, shard: int, rows: Iterable[int]) -> list[str]:
        """The ids of some rows of a shard."""
        ids = read_column(self.shards[shard] / "kept.parquet", "id")
        return [ids[row] for row in rows]


class _Notes:
    """The removals that follow from clusters; `first` (documents,) int64 is the first document of each one's.

    Who stays may be in any earlier shard. So the ids and signatures of all first documents are copied into one file
    each beforehand: every shard is read twice, however the clusters lie.
    """

    def __init__(self, corpus: _Corpus, first: np.ndarray, scratch: Path) -> None:
        self.corpus, self.first, self.scratch = corpus, first, scratch
        self.sizes = np.zeros(corpus.size, dtype=np.uint32)
        for _, part in _parts(first):
            np.add.at(self.sizes, part, 1)
        self.heads = np.flatnonzero(self.sizes > 1)

    def write(self, writer: RemovalsWriter, compare: bool) -> None:
        """To `writer`; with the similarity of the signatures if `compare`, else 1."""
        heads = self.scratch / "heads"
        with Pieces(heads) as signatures:
            for shard in range(len(self.corpus.shards)):
                self._note_heads(shard, writer.ids, signatures if compare else None)
            for shard in range(len(self.corpus.shards)):
                self._note_removed(shard, writer, signatures if compare else None)
        shutil.rmtree(heads)
        removed = int(self.sizes[self.heads].sum()) - len(self.heads)
        writer.close(removed=removed, clusters=len(self.heads), largest=int(self.sizes.max(initial=0)))

    def _note_heads(self, shard: int, ids: Pieces, signatures: Pieces | None) -> None:
        start, end = self.corpus.starts[shard : shard + 2]
        rows = self.heads[slice(*np.searchsorted(self.heads, (start, end)))] - start
        if len(rows):
            ids.append([head.encode() for head in self.corpus.ids(shard, rows)])
            if signatures:
                signatures.append([signature.tobytes() for signature in self.corpus.signatures(shard, rows)])

    def _note_removed(self, shard: int, writer: RemovalsWriter, signatures: Pieces | None) -> None:
        start, end = self.corpus.starts[shard : shard + 2]
        rows = np.flatnonzero(self.first[start:end] != np.arange(start, end))
        stays = self.first[start + rows]
        number, similarity = np.searchsorted(self.heads, stays), np.ones(len(rows))
        if signatures and len(rows):
            theirs = np.frombuffer(b"".join(signatures.read(number)), dtype="<u8").reshape(len(rows), -1)
            # An estimate of the Jaccard similarity: the fraction of equal values.
            similarity = (self.corpus.signatures(shard, rows) == theirs).mean(axis=1)
        writer.add(rows, number, similarity, self.sizes[stays])
