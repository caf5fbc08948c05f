"""Large blocks of memory in pages of two megabytes, where Linux has them to give.

What a step of generation reads is read once, so every page of it is looked up anew: with pages of four kilobytes a
core waits for that twice as long as for the memory (34 MB of weights: 3.8 ms against 1.8).
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

_PAGE, _LEAST = 1 << 21, 1 << 22  # bytes: of a page, and of a block that is worth them
_ADVICE = 14  # MADV_HUGEPAGE


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """As `torch.empty`, on the CPU."""
    size = math.prod(shape) * dtype.itemsize
    if size < _LEAST or _madvise() is None:
        return torch.empty(shape, dtype=dtype)
    block = torch.empty(size + _PAGE, dtype=torch.uint8)
    begin = -block.data_ptr() % _PAGE
    _madvise()(ctypes.c_void_p(block.data_ptr() + begin), ctypes.c_size_t(size), _ADVICE)
    return block[begin : begin + size].view(dtype).view(shape)


@cache
def _madvise() -> Any:
    return getattr(ctypes.CDLL(None), "madvise", None)
