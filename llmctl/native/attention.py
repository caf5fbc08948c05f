"""Causal attention in bfloat16 on a CPU, forward and backward (attention.cpp), eager and inside compiled graphs.

Shapes: B rows, T tokens, H heads, K key/value heads, E head_dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmctl.native.build import library
from llmctl.native.call import call

_WIDEST = 128  # units a head


@torch.compiler.assume_constant_result
def available() -> bool:
    """Whether the kernels can be had here."""
    return library("attention") is not None


def covers(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether `causal` takes heads of this kind: facts that never change while a model runs, so that a graph may be
    compiled around the answer.
    """
    return (
        device.type == "cpu"
        and dtype == torch.bfloat16
        and head_dim % 32 == 0
        and 0 < head_dim <= _WIDEST
        and available()
    )


def causal(q: Tensor, k: Tensor, v: Tensor, segments: Tensor | None = None) -> Tensor:
    """Attention of q (B,H,T,E) to k and v (B,K,T,E), each token to itself and those before it; with `segments` (B,T),
    to those of its own run of equal numbers. Gives (B,H,T,E) that lies in memory as (B,T,H,E).
    """
    laid = [x.transpose(1, 2) if x.stride(-1) == 1 else x.transpose(1, 2).contiguous() for x in (q, k, v)]
    out: Tensor = _attention(*laid, segments)[0]
    return out.transpose(1, 2)


@torch.library.custom_op("llmctl::attention", mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
    b, t, h, _ = q.shape
    out, bits = q.new_empty(q.shape), q.new_empty((b, h, t), dtype=torch.float32)
    call(_kernels().attention, q, k, v, _numbers(segments), out, bits, _shape(q, k, v))
    return out, bits


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
    b, t, h, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((b, h, t), dtype=torch.float32)


@torch.library.custom_op("llmctl::attention_backward", mutates_args=())
def _attention_backward(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, segments: Tensor | None, out: Tensor, bits: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    d_out = d_out if d_out.stride(-1) == 1 else d_out.contiguous()
    d_q, d_k, d_v = (x.new_empty(x.shape) for x in (q, k, v))
    shape = _shape(q, k, v, d_out)
    call(_kernels().attention_backward, d_out, q, k, v, _numbers(segments), out, bits, d_q, d_k, d_v, shape)
    return d_q, d_k, d_v


@_attention_backward.register_fake
def _(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, segments: Tensor | None, out: Tensor, bits: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _gradients(ctx: Any, d_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_attention_backward(d_out, *ctx.saved_tensors), None


_attention.register_autograd(_gradients, setup_context=_save)


def _numbers(segments: Tensor | None) -> Tensor | None:
    return None if segments is None else segments.to(torch.int64).contiguous()


def _shape(*tensors: Tensor) -> Tensor:
    """Struct Shape of attention.hpp."""
    b, t, h, e = tensors[0].shape
    return torch.tensor([b, t, h, tensors[1].shape[2], e, *(n for x in tensors for n in x.stride()[:3]), 0, 0, 0])


def _kernels() -> Any:
    return library("attention")
