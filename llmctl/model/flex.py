"""Attention inside documents on a GPU: whole blocks of queries and keys that no document joins are never computed.

With a mask that is a tensor PyTorch leaves its flash kernel for one that computes every pair and then hides most.
FlexAttention (arXiv:2412.05496) compiles a kernel for the rule itself, forward and backward. Nothing but document masks
comes here: plain causal attention has the flash kernel, and a CPU the tensor.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

_LEAST = 16  # units a head that the kernels take


def suits(segments: Tensor, head_dim: int) -> bool:
    """Whether documents (B,T) are to be kept apart this way."""
    return segments.device.type == "cuda" and head_dim >= _LEAST


def document_mask(segments: Tensor) -> BlockMask:
    """The rule of `attention.segment_mask`: a position sees what is not behind it and of its own segment."""

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (segments[row, query] == segments[row, key])

    b, t = segments.shape
    make = create_block_mask if torch.compiler.is_compiling() else _mask_maker(segments.device.type)
    found: BlockMask = make(sees, b, None, t, t, device=segments.device)
    return found


def attend(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask) -> Tensor:
    """(B,H,T,E), and keys and values of fewer heads (B,K,T,E), to (B,H,T,E)."""
    kernel = flex_attention if torch.compiler.is_compiling() else _kernel(q.device.type)
    grouped = q.shape[1] != k.shape[1]
    out: Tensor = kernel(q.to(v.dtype), k.to(v.dtype), v, block_mask=mask, enable_gqa=grouped)
    return out


@cache
def _kernel(device: str) -> Any:
    """Compiled by itself where the model is not: uncompiled it holds all the scores. A CPU is for tests only."""
    return torch.compile(flex_attention) if device == "cuda" else flex_attention


@cache
def _mask_maker(device: str) -> Any:
    return torch.compile(create_block_mask) if device == "cuda" else create_block_mask
