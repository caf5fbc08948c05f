"""MinHash signatures (Broder 1997), bit for bit those of datatrove's FineWeb configuration.

A text is normalised, cut into overlapping runs of words, every run hashed by SHA-1; each of `buckets * hashes` random
linear functions keeps its smallest value over the runs. Two texts agree in one value with the probability of their
Jaccard similarity.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

import numpy as np

from llmctl.filter.characters import PUNCTUATION
from llmctl.filter.config import MinHashSettings
from llmctl.filter.words import words

_PRIME = np.uint64((1 << 61) - 1)
_NUMBER = re.compile(r"\d+(?:[.,،٫⎖⎗⎘]\d+)?")  # \d is Unicode's decimal digits, datatrove's \p{Nd}
_NO_PUNCTUATION = str.maketrans(dict.fromkeys(PUNCTUATION, " "))
_ROWS = 4096  # shingles hashed at once: 3.7 MB of intermediate values for 112 functions


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
        found = shingles(simplify(text), self.ngram)
        if not len(found):
            return None
        best = np.full(self.a.shape[1], np.iinfo(np.uint64).max, dtype=np.uint64)
        for at in range(0, len(found), _ROWS):
            # The product wraps around at 2^64 before the modulus is taken: no field arithmetic any more, but what
            # datatrove computes.
            hashed = (found[at : at + _ROWS, None] * self.a + self.b) % _PRIME
            best = np.minimum(best, hashed.min(axis=0))
        return best.reshape(self.shape)


def simplify(text: str) -> str:
    """Lower case, numbers as 0, no punctuation, no accents, single spaces."""
    text = _NUMBER.sub("0", text.lower()).translate(_NO_PUNCTUATION)
    text = " ".join(text.split())
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn").strip()
    return text


def shingles(text: str, ngram: int) -> np.ndarray:
    """Shape (runs,) uint64: the first eight bytes of the SHA-1 of every run of `ngram` words."""
    found = words(text)
    runs = (" ".join(found[i : i + ngram]) for i in range(len(found) - ngram + 1))
    return np.frombuffer(b"".join(hashlib.sha1(run.encode()).digest()[:8] for run in runs), dtype="<u8")
