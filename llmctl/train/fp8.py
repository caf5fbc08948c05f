"""Matrix products in 8 bits, for GPUs that have them (Ada, Hopper, Blackwell): twice the rate of bfloat16.

A linear layer has one product forward and two backward. Before each, both sides are scaled so that the largest entry of
the tensor is the largest of the format, and cast: to e4m3 (3 bits of mantissa, up to 448) inputs and weights, to e5m2
(2 bits, up to 57,344) gradients, whose range is wider. `torch._scaled_mm` multiplies, adds up in float32 and takes the
scales out again. This is "tensorwise dynamic scaling" (arXiv:2209.05433; nanochat and torchao train with it). Weights,
optimizer, attention, embedding and head stay as they were.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.errors import UserError
from llmctl.train.fsdp import blocks

_STEP = 16  # the kernels take sizes in steps of 16 only
_LEAST = 1e-12  # of the largest entry: a tensor of zeros stays one


def check_fp8(device: torch.device) -> None:
    """UserError where `device` has no products in 8 bits."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if capability < (8, 9):
        found = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
        raise UserError(
            f"products in 8 bits need a GPU of compute capability 8.9 or more (L4, RTX 4090, H100); here is {found}",
            "train.fp8",
            "leave it out",
        )


def use_fp8(model: nn.Module) -> None:
    """Have every linear layer in the blocks of `model` multiply in 8 bits, in place; its parameters stay the same."""
    for block in blocks(model):
        for module in block.modules():
            if type(module) is nn.Linear and not (module.in_features % _STEP or module.out_features % _STEP):
                module.__class__ = Float8Linear


class Float8Linear(nn.Linear):
    """A linear layer that multiplies in 8 bits."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N), in bfloat16."""
        flat = x.reshape(-1, x.shape[-1])
        if len(flat) % _STEP:
            return F.linear(x, self.weight, self.bias)
        y: Tensor = _Product.apply(flat.bfloat16(), self.weight)
        y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def quantized(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`x` as 8-bit floats and the () float32 that these are to be multiplied by."""
    most = torch.finfo(dtype).max
    scale = x.abs().amax().float().clamp(min=_LEAST) / most
    return (x.float() / scale).clamp(-most, most).to(dtype), scale  # a cast alone does not saturate


class _Product(torch.autograd.Function):
    """X (M,K) times weight (N,K) transposed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        qx, sx = quantized(x, torch.float8_e4m3fn)
        qw, sw = quantized(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(qx, sx, qw, sw)
        return _multiply(qx, sx, qw.t(), sw, fast=True)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        qx, sx, qw, sw = ctx.saved_tensors
        qd, sd = quantized(d_y, torch.float8_e5m2)
        d_x = _multiply(qd, sd, _by_columns(qw), sw, fast=False)
        d_weight = _multiply(qd.t().contiguous(), sd, _by_columns(qx), sx, fast=False)
        return d_x, d_weight


def _multiply(a: Tensor, a_scale: Tensor, b: Tensor, b_scale: Tensor, fast: bool) -> Tensor:
    """(M,K) by rows times (K,N) by columns, in bfloat16. `fast` adds up less exactly: good enough forward."""
    return torch._scaled_mm(a, b, a_scale, b_scale, out_dtype=torch.bfloat16, use_fast_accum=fast)


def _by_columns(x: Tensor) -> Tensor:
    """The same matrix, laid out column by column, as the kernels want their second operand."""
    return x.t().contiguous().t()
