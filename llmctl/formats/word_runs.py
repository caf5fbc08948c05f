"""Runs of words as 64-bit numbers, the same in every process and on every machine, found for a whole text at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing
_MOST = 1 << 19  # words remembered: 60 MB


class _Hashes(dict[str, int]):
    """The hash of every word, worked out when it is first asked for."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST:
            self.clear()
        found = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        self[word] = found
        return found


_hashes = _Hashes()


def word_hashes(found: Sequence[str]) -> np.ndarray:
    """Shape (words,) uint64."""
    return np.fromiter(map(_hashes.__getitem__, found), np.uint64, len(found))


def runs(hashes: np.ndarray, lengths: Iterable[int]) -> dict[int, np.ndarray]:
    """For each of `lengths` (at least 1), the hash of every run of that many words, shape (words - length + 1,) uint64.

    A polynomial of the words' hashes modulo 2^64, mixed with the length: runs of different lengths are different.
    """
    wanted = set(lengths)
    found = {}
    value = np.zeros(len(hashes) + 1, np.uint64)
    for length in range(1, max(wanted, default=0) + 1):
        value = value[:-1] * _BASE + hashes[length - 1 :] if len(value) else value
        if length in wanted:
            found[length] = _mixed(value + np.uint64(length))
    return found


def _mixed(value: np.ndarray) -> np.ndarray:
    """splitmix64's last steps (Steele et al. 2014): every bit in depends on every bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
