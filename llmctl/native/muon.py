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


def fuses(buffer: Tensor, dtype: torch.dtype) -> bool:
    """Whether `follow` and `move` serve for momenta in `buffer` and directions of `dtype`."""
    there = buffer.device.type == "cpu" and buffer.dtype == torch.float32 and dtype == torch.bfloat16
    return there and library("muon") is not None


def follow(grads: Sequence[Tensor], buffer: Tensor, beta: float) -> Tensor:
    """Move the momenta `buffer` (N,m,n) after `grads`; gives what Nesterov looks ahead to, (N,m,n) bfloat16."""
    kernels, out = library("muon"), torch.empty_like(buffer, dtype=torch.bfloat16)
    assert kernels is not None
    for g, m, o in zip(grads, buffer.unbind(0), out.unbind(0), strict=True):
        call(kernels.follow, g.contiguous(), m, o, g.numel(), float(beta))
    return out


def move(params: Sequence[Tensor], update: Tensor, keep: float, rate: float) -> None:
    """Each of `params` becomes `keep` times itself less `rate` times its matrix of `update` (N,m,n) bfloat16."""
    kernels, update = library("muon"), update.contiguous()
    assert kernels is not None
    for p, u in zip(params, update.unbind(0), strict=True):
        call(kernels.move, p.data, u, p.numel(), float(keep), float(rate))
