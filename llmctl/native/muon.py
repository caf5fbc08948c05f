"""Muon's polynomial for stacks of bfloat16 matrices on a CPU (muon.cpp)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmctl.native.build import library
from llmctl.native.call import call

_WIDEST = 1024  # of the smaller side: a thread holds a matrix and its powers in its cache


def suits(g: Tensor) -> bool:
    """Whether the kernel is the faster way for the matrices in `g` (N,m,n): enough of them for all threads."""
    return (
        g.dim() == 3
        and g.device.type == "cpu"
        and g.dtype == torch.bfloat16
        and min(g.shape[1:]) <= _WIDEST
        and len(g) >= torch.get_num_threads()
        and library("muon") is not None
    )


def polynomial(g: Tensor, first: float, steps: Sequence[tuple[float, float]]) -> Tensor:
    """Each matrix of `g` (N,m,n), brought to the norm `first` / 1.02, through x <- ((x x^T + h)^2 + k) x for
    each (h, k) of `steps`; for tall ones the powers stand on the other side.
    """
    kernels = library("muon")
    assert kernels is not None
    x, numbers = g.clone(memory_format=torch.contiguous_format), torch.tensor(steps, dtype=torch.float32)
    call(kernels.orthogonalize, x, *x.shape, float(first), numbers, len(steps))
    return x
