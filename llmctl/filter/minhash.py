"""MinHash signatures (Broder 1997), bit for bit those of datatrove's FineWeb configuration, ten times as fast.

A text is simplified, cut into overlapping runs of words, every run hashed by SHA-1; each of `buckets * hashes` random
linear functions keeps its smallest value over the runs. Two texts agree in one value with the probability of their
Jaccard similarity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmctl.filter.config import MinHashSettings
from llmctl.filter.minhash_sha1 import sha1_prefixes
from llmctl.filter.minhash_text import simplify
from llmctl.filter.words import words

_PRIME = np.uint64((1 << 61) - 1)
_ROWS = 256  # runs at once: 0.5 MB of intermediate values for 112 functions, which a core's second cache holds
_BATCH = 16  # texts at once: some 10,000 runs, as many as `sha1_prefixes` takes


class MinHasher:
    """Makes signatures. The random functions come from a fixed generator, so signatures of different runs compare."""

    def __init__(self, settings: MinHashSettings) -> None:
        self.shape = (settings.buckets, settings.hashes)
        self.ngram = settings.ngram
        generator, size = np.random.RandomState(1), (1, settings.buckets * settings.hashes)
        self.a = generator.randint(1, int(_PRIME), dtype=np.uint64, size=size)
        self.b = generator.randint(0, int(_PRIME), dtype=np.uint64, size=size)

    def signature(self, text: str) -> np.ndarray | None:
        """Shape (buckets, hashes) uint64, or None for a text of fewer words than a run has."""
        return self.signatures([text])[0]

    def signatures(self, texts: Sequence[str]) -> list[np.ndarray | None]:
        """The signature of each text. A dozen and more at once take two thirds of the time a text."""
        found: list[np.ndarray | None] = []
        for at in range(0, len(texts), _BATCH):
            for hashed in shingles([simplify(text) for text in texts[at : at + _BATCH]], self.ngram):
                found.append(self.smallest(hashed) if len(hashed) else None)
        return found

    def smallest(self, hashed: np.ndarray) -> np.ndarray:
        """Of every function its smallest value over `hashed` (runs,) uint64: shape (buckets, hashes)."""
        parts = [hashed[at : at + _ROWS, None] for at in range(0, len(hashed), _ROWS)]
        smallest: np.ndarray = np.min([smallest_remainder(part * self.a + self.b) for part in parts], axis=0)
        return smallest.reshape(self.shape)


def smallest_remainder(x: np.ndarray) -> np.ndarray:
    """`(x % _PRIME).min(axis=0)` without a division; changes `x`.

    The products in it have wrapped around at 2^64, as datatrove's do, so there are no larger numbers. 2^61 is 1 modulo
    the prime 2^61 - 1, so the upper three bits are added to the lower 61: a number equal modulo the prime that is the
    remainder itself unless it reaches the prime, which one in 10^17 does.
    """
    upper = x >> np.uint64(61)
    x &= _PRIME
    x += upper
    if x.max() >= _PRIME:
        x %= _PRIME
    smallest: np.ndarray = x.min(axis=0)
    return smallest


def shingles(texts: Sequence[str], ngram: int) -> list[np.ndarray]:
    """For each text (runs,) uint64: the first eight bytes of the SHA-1 of every run of `ngram` words."""
    found = [words(text) for text in texts]
    runs = np.array([max(len(of_text) - ngram + 1, 0) for of_text in found])
    counts = np.array([len(of_text) for of_text in found])
    # All words with a space between them: a run is a piece of that, and where the spaces are says where words begin.
    data = " ".join([" ".join(of_text) for of_text in found if of_text]).encode("utf-8", "surrogatepass")
    spaces = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord(" "))
    starts, ends = np.append(0, spaces + 1), np.append(spaces, len(data))
    assert len(starts) == max(counts.sum(), 1), "a word with a space in it"
    # The words that begin a run: of every text all but its last few.
    first = np.repeat(np.cumsum(counts) - counts - np.cumsum(runs) + runs, runs) + np.arange(runs.sum())
    hashed = sha1_prefixes(data, starts[first], ends[first + ngram - 1])
    return np.split(hashed, np.cumsum(runs)[:-1])
