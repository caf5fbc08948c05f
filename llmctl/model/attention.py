"""Which attention is computed how: one place that knows the machine, the type and the mask.

On a CPU in bfloat16 the kernels of `native.attention` take causal attention, of whole rows or of documents. On a GPU
documents go to FlexAttention and the rest to the flash kernel. What remains is PyTorch's fused attention, whose
backward on a CPU is slow (7 and 51 ms for 16 rows of 256 tokens and 6 heads in bfloat16, one core): compiled training
keeps it forward, and backward makes the probabilities again from its log-sum-exp, block of queries by block of queries
so that most of what the mask hides is never computed, and the compiler fuses what lies between the products: 21 ms. The
formulas are FlashAttention's (arXiv:2205.14135, appendix B.4).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl.model import flex
from llmctl.native import attention as native

_BLOCKS = 2  # of queries: two leave out half of what is hidden; four were no faster
_LONGEST = 1024  # tokens: a block's probabilities are held in memory


class Documents(NamedTuple):
    """A mask by what it means: causal within runs of equal `segments` (B,T)."""

    segments: Tensor


Mask: TypeAlias = Tensor | flex.BlockMask | Documents | None
"""(B,1,T,S) bool, True where a query may look; or the rule itself; None for causal."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Attention of q (B,H,T,E) to k and v (B,K,S,E), (B,H,T,E). Without a mask T = S, or T = 1 and all S are seen."""
    if isinstance(mask, flex.BlockMask):
        return flex.attend(q, k, v, mask)
    causally = mask is None and q.shape[2] > 1
    assert not causally or k.shape[2] == q.shape[2], "several new tokens behind a filled cache need a mask"
    segments = mask.segments if isinstance(mask, Documents) else None
    if (causally or segments is not None) and native.covers(v.device, v.dtype, v.shape[-1]):
        return native.causal(q.to(v.dtype), k.to(v.dtype), v, segments)
    if causally and suits(q, k):
        return causal(q, k, v)
    seen = segment_mask(mask.segments) if isinstance(mask, Documents) else mask
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causally, enable_gqa=grouped)


def document_mask(segments: Tensor, dtype: torch.dtype, head_dim: int) -> Mask:
    """What keeps the documents (B,T) apart in `attend`, for heads computed in `dtype`. Each document is one run."""
    if flex.suits(segments, head_dim):
        return flex.document_mask(segments)
    if native.covers(segments.device, dtype, head_dim):
        return Documents(segments)
    return segment_mask(segments)


def segment_mask(segments: Tensor) -> Tensor:
    """(B,1,T,T) bool from `segments` (B,T): causal and within one segment; every position sees at least itself."""
    t = segments.shape[1]
    causal = torch.ones(t, t, dtype=torch.bool, device=segments.device).tril()
    return (segments[:, None, :, None] == segments[:, None, None, :]) & causal


def suits(q: Tensor, k: Tensor) -> bool:
    """Whether `causal` is faster than PyTorch's way for queries and keys of these shapes (B,H,T,E)."""
    return (
        torch.compiler.is_compiling()
        and q.device.type == "cpu"
        and torch.is_grad_enabled()
        and q.shape == k.shape
        and q.shape[2] <= _LONGEST
        and q.shape[2] % _BLOCKS == 0
    )


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention of (B,H,T,E) each, every position seeing itself and what is before it."""
    out: Tensor = _Causal.apply(q, k, v)
    return out


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
        ctx.save_for_backward(q, k, v, out, logsumexp)
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        q, k, v, out, logsumexp = ctx.saved_tensors
        t, scale = q.shape[2], 1 / math.sqrt(q.shape[3])
        inner = (d_out.float() * out.float()).sum(-1, keepdim=True)
        at = torch.arange(t, device=q.device)
        size, parts = t // _BLOCKS, []
        for begin in range(0, t, size):
            rows, end = slice(begin, begin + size), begin + size
            queries, d_rows, keys, values = q[:, :, rows], d_out[:, :, rows], k[:, :, :end], v[:, :, :end]
            scores = (queries @ keys.mT).float() * scale - logsumexp[:, :, rows, None]
            p = torch.where(at[None, :end] <= at[rows, None], torch.exp(scores), 0.0)
            d_scores = (p * ((d_rows @ values.mT).float() - inner[:, :, rows]) * scale).to(q.dtype)
            pad = (0, 0, 0, t - end)
            parts.append((d_scores @ keys, F.pad(d_scores.mT @ queries, pad), F.pad(p.to(q.dtype).mT @ d_rows, pad)))
        d_q, d_k, d_v = zip(*parts, strict=True)
        return torch.cat(d_q, 2), sum(d_k[1:], d_k[0]), sum(d_v[1:], d_v[0])
