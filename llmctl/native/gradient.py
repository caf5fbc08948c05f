"""The gradient of a matrix, in float32 from bfloat16 (gradient.cpp)."""

from __future__ import annotations

import torch
from torch import Tensor

from llmctl.native.build import library
from llmctl.native.call import call


def matrix_gradient(d_out: Tensor, x: Tensor, total: Tensor | None = None) -> Tensor:
    """d_out^T x: (N,out) and (N,in) bfloat16 to (out,in) float32, added to `total` where that is given."""
    kernels = library("gradient")
    assert kernels is not None
    d_out, x = (t if t.stride(1) == 1 else t.contiguous() for t in (d_out, x))
    found = torch.empty(d_out.shape[1], x.shape[1]) if total is None else total
    if len(x) == 0:
        return found if total is not None else found.zero_()
    call(
        kernels.matrix_gradient, d_out, d_out.stride(0), x, x.stride(0), found, int(total is not None),
        *found.shape, len(x),
    )  # fmt: skip
    return found
