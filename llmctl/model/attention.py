"""Causal attention for compiled training on a CPU.

PyTorch's fused attention is fast forward and slow backward there (7 and 51 ms for 16 rows of 256 tokens and 6 heads in
bfloat16, one core). Forward it is kept; backward the probabilities are made again from its log-sum-exp, block of
queries by block of queries so that most of what the mask hides is never computed, and the compiler fuses what lies
between the products: 21 ms. The formulas are FlashAttention's (arXiv:2205.14135, appendix B.4).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCKS = 2  # of queries: two leave out half of what is hidden; four were no faster
_LONGEST = 1024  # tokens: a block's probabilities are held in memory


def suits(q: Tensor, k: Tensor) -> bool:
    """Whether `causal` is the faster way for queries and keys of these shapes (B,H,T,E)."""
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
