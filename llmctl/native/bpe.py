"""What `bpe.cpp` takes. It needs a C++ compiler and no special processor."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np

from llmctl.native.build import is_made, library

_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int64
_RETURNED = {
    "bpe_words": _POINTER,
    "bpe_free": None,
    "bpe_count": None,
    "bpe_size": _NUMBER,
    "bpe_word": _POINTER,
    "bpe_learn": _POINTER,
    "bpe_pairs": _POINTER,
    "bpe_forget": None,
}
OTHER, LETTER, NUMBER, SPACE, NEWLINE = range(5)  # as in bpe.cpp


def available(compile: bool = True) -> bool:
    """Whether the kernel can be had here; unless `compile`, without being compiled now, which takes a second."""
    return (compile or is_made("bpe")) and library("bpe") is not None


class Words:
    """How often each word occurs that GPT-4's pattern, with at most `digits` digits a word, cuts texts into.

    `kinds` (0x110000,) uint8 says of every code point whether it is a letter, a number, white space or other.
    """

    def __init__(self, kinds: np.ndarray, digits: int) -> None:
        assert kinds.shape == (0x110000,) and kinds.dtype == np.uint8 and kinds.flags.c_contiguous
        self._library, self._kinds = _functions(), kinds
        self._handle = _POINTER(self._library.bpe_words(_POINTER(kinds.ctypes.data), _NUMBER(digits)))
        weakref.finalize(self, self._library.bpe_free, self._handle)

    def add(self, text: str) -> None:
        """Count the words of `text`. UnicodeEncodeError where it has lone surrogates; no word is counted then."""
        encoded = text.encode()
        self._library.bpe_count(self._handle, encoded, _NUMBER(len(encoded)))

    def counts(self) -> dict[bytes, int]:
        """Each word with its count."""
        size, count, found = _NUMBER(), _NUMBER(), {}
        for i in range(self._library.bpe_size(self._handle)):
            at = self._library.bpe_word(self._handle, _NUMBER(i), ctypes.byref(size), ctypes.byref(count))
            found[ctypes.string_at(at, size.value)] = count.value
        return found

    def merges(self, alphabet: bytes, size: int) -> np.ndarray:
        """(N,2) int32: the pairs of ids to merge for `size` tokens, or for as many as there can be.

        `alphabet` has the 256 bytes in the order of their ids; each merge makes the next id, unless its bytes have one.
        """
        assert len(set(alphabet)) == 256 == len(alphabet)
        learner = _POINTER(self._library.bpe_learn(self._handle, alphabet, _NUMBER(size)))
        if not learner:
            raise MemoryError("the different words of the text have more than 2 GiB")
        try:
            count = _NUMBER()
            at = self._library.bpe_pairs(learner, ctypes.byref(count))
            return np.frombuffer(ctypes.string_at(at, count.value * 8), np.int32).reshape(-1, 2)
        finally:
            self._library.bpe_forget(learner)


def _functions() -> Any:
    found = library("bpe")
    assert found is not None
    for name, returned in _RETURNED.items():
        getattr(found, name).restype = returned
    return found
