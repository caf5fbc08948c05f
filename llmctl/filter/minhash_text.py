"""What MinHash compares: a text without case, accents, punctuation and numbers; datatrove's `simplify_text`, exactly.

The two steps that look at every character (punctuation to spaces, accents away) are look-ups in tables over all code
points: 20 times as fast as `str.translate` and `unicodedata.category`, which took more time than the hashing.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import lru_cache

import numpy as np

from llmctl.filter.characters import PUNCTUATION

# \d is Unicode's decimal digits, datatrove's \p{Nd}. `\d\d*` for `\d+`: an expression that begins with a set of
# characters is searched for several times as fast as one that begins with a repetition.
_NUMBER = re.compile(r"\d\d*(?:[.,،٫⎖⎗⎘]\d+)?")
_ASCII_NUMBER = re.compile(r"[0-9][0-9]*(?:[.,][0-9]+)?")
_ASCII_SPACES = str.maketrans({c: " " for c in PUNCTUATION if c.isascii()})
_CODES = "utf-32-le"  # one code point is one uint32


def simplify(text: str) -> str:
    """Lower case, numbers as 0, no punctuation, no accents, single spaces."""
    text = text.lower()
    if text.isascii():
        return " ".join(_ASCII_NUMBER.sub("0", text).translate(_ASCII_SPACES).split())
    codes = _spaces()[_codes(_NUMBER.sub("0", text))]
    text = unicodedata.normalize("NFD", " ".join(_text(codes).split()))
    codes = _codes(text)
    marks = _marks()[codes]
    return (_text(codes[~marks]) if marks.any() else text).strip()


def _codes(text: str) -> np.ndarray:
    """The code points of `text`, (characters,) uint32."""
    return np.frombuffer(text.encode(_CODES, "surrogatepass"), dtype="<u4")


def _text(codes: np.ndarray) -> str:
    return codes.tobytes().decode(_CODES, "surrogatepass")


@lru_cache(maxsize=1)
def _spaces() -> np.ndarray:
    """Every code point as itself, punctuation as a space: (0x110000,) uint32."""
    table = np.arange(sys.maxunicode + 1, dtype="<u4")
    table[[ord(c) for c in PUNCTUATION]] = ord(" ")
    return table


@lru_cache(maxsize=1)
def _marks() -> np.ndarray:
    """Which code points are marks that take no room (category Mn): (0x110000,) bool. Takes 0.1 s, once a process."""
    return np.array([unicodedata.category(chr(code)) == "Mn" for code in range(sys.maxunicode + 1)])
