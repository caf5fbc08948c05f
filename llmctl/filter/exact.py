"""Equal texts, found by a digest of their characters."""

from __future__ import annotations

import hashlib

import numpy as np


def digest(text: str) -> np.ndarray:
    """128 bits of BLAKE2b, shape (2,) uint64: two different texts out of 10^12 meet with probability 10^-15."""
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), dtype="<u8")
