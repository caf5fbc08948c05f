"""The layers of a transformer as training on a CPU computes them: bfloat16 activations beside a float32 residual
stream, products by oneDNN, and everything between two products in one pass over memory (layers.cpp).

Shapes: N tokens, D width, F width of the MLP, H heads, E head_dim. Every function has its gradient, and each gives what
autocast gives with the modules themselves, rounded to bfloat16 in fewer places. Not traceable by `torch.compile`, which
they make unnecessary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from llmctl.native.build import library
from llmctl.native.call import call
from llmctl.native.gradient import matrix_gradient

_PARTS = 16  # sums over tokens, as in layers.cpp
Half = torch.bfloat16


def add_norm(x: Tensor, y: Tensor | None, gain: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """X + y and its root-mean-square norm times `gain`: x (N,D) float32, y (N,D) bfloat16 or None; the sum comes back
    as float32, the norm as bfloat16.
    """
    total, out = _AddNorm.apply(x, y, gain, eps)
    return total, out


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """X (N,in) bfloat16 times `weight` (out,in): (N,out) bfloat16."""
    out: Tensor = _Linear.apply(x, weight)
    return out


def mlp(x: Tensor, gate: Tensor | None, up: Tensor, down: Tensor) -> Tensor:
    """(N,D) to (N,D): down(silu(gate x) * up x), or without a gate down(relu(up x)^2). Only the products' results are
    kept for the gradient.
    """
    out: Tensor = _MLP.apply(x, gate, up, down)
    return out


def project(
    x: Tensor, weights: tuple[Tensor, Tensor, Tensor], gains: tuple[Tensor | None, Tensor | None], eps: float,
    cos: Tensor, sin: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Queries, keys and values (N,HE), (N,KE), (N,KE) of x (N,D): queries and keys normed by head (not if `eps` is
    negative), times `gains` (E,), and turned by `cos` and `sin` (P,E/2), token n by row n % P.
    """
    q, k, v = _Project.apply(x, *weights, *gains, eps, cos, sin)
    return q, k, v


def _mm(x: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(x, weight.T)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        w = weight.detach().to(Half)
        ctx.save_for_backward(x, w)
        return _mm(x, w)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        x, w = ctx.saved_tensors
        d_x = torch.mm(d_out, w) if ctx.needs_input_grad[0] else None
        d_w = matrix_gradient(d_out, x) if ctx.needs_input_grad[1] else None
        return d_x, d_w


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, y: Tensor | None, gain: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        out, scale = torch.empty(x.shape, dtype=Half), torch.empty(len(x))
        total = x if y is None else torch.empty_like(x)
        call(_kernels().add_norm, x, y, gain, total, out, scale, *x.shape, float(eps))
        ctx.save_for_backward(total, scale, gain)
        ctx.alone = y is None
        if ctx.alone:
            total = x.view_as(x)
        ctx.set_materialize_grads(False)
        return total, out

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, d_total: Tensor | None, d_out: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        total, scale, gain = ctx.saved_tensors
        if d_out is None:
            return d_total, None if ctx.alone or d_total is None else d_total.to(Half), None, None
        d_x, d_y = torch.empty_like(total), None if ctx.alone else torch.empty(total.shape, dtype=Half)
        d_gain = None if gain is None else torch.zeros(_PARTS, total.shape[1])
        above = None if d_total is None else d_total.contiguous()
        call(
            _kernels().add_norm_backward, d_out.contiguous(), total, scale, gain, above, d_x, d_y, d_gain, *total.shape
        )
        return d_x, d_y, None if d_gain is None else d_gain.sum(0), None


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, gate: Tensor | None, up: Tensor, down: Tensor
    ) -> Tensor:
        first = [w.detach().to(Half) for w in (gate, up) if w is not None]
        last, made = down.detach().to(Half), [_mm(x, w) for w in first]
        hidden = torch.empty_like(made[0])
        call(_kernels().gate, made[0], None if gate is None else made[1], hidden, hidden.numel())
        ctx.save_for_backward(x, last, *first, *made)
        return _mm(hidden, last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, last, *rest = ctx.saved_tensors
        first, made = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        d_hidden, hidden = torch.mm(d_out, last), torch.empty_like(made[0])
        d_made = [torch.empty_like(m) for m in made]
        up, d_up = (made[1], d_made[1]) if len(made) == 2 else (None, None)
        call(_kernels().gate_backward, d_hidden, made[0], up, hidden, d_made[0], d_up, hidden.numel())
        d_x = torch.mm(d_made[0], first[0])
        if d_up is not None:
            d_x.addmm_(d_up, first[1])
        if not any(ctx.needs_input_grad[1:]):
            return d_x, None, None, None
        d_first = [matrix_gradient(d, x) for d in d_made]
        return d_x, None if up is None else d_first[0], d_first[-1], matrix_gradient(d_out, hidden)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, gq: Tensor | None, gk: Tensor | None, eps: float,
        cos: Tensor, sin: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        weights, sizes, size = _joined(wq, wk, wv), [len(wq), len(wk), len(wv)], 2 * cos.shape[1]
        q, k, v = (_mm(x, w) for w in weights.split(sizes))
        turned, scales = [], []
        for part, gain in ((q, gq), (k, gk)):
            heads, out = part.shape[1] // size, torch.empty_like(part)
            scale = torch.empty(len(x), heads)
            call(_kernels().norm_turn, part, out, scale, gain, cos, sin, len(x), heads, size, len(cos), float(eps))
            turned.append(out)
            scales.append(scale)
        ctx.save_for_backward(x, weights, q, k, *scales, gq, gk, cos, sin)
        ctx.sizes, ctx.eps = sizes, eps
        return turned[0], turned[1], v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weights, q, k, scale_q, scale_k, gq, gk, cos, sin = ctx.saved_tensors
        all_d = x.new_empty(len(x), len(weights))
        parts, size = all_d.split(ctx.sizes, dim=1), 2 * cos.shape[1]
        gains = []
        for d, before, scale, gain, to in zip(outer[:2], (q, k), (scale_q, scale_k), (gq, gk), parts[:2], strict=True):
            d_gain = torch.zeros(_PARTS, size)
            heads = before.shape[1] // size
            call(
                _kernels().norm_turn_backward, d.contiguous(), before, scale, gain, cos, sin, to, d_gain,
                len(x), heads, size, len(cos), to.stride(0), int(ctx.eps >= 0),
            )  # fmt: skip
            gains.append(None if gain is None else d_gain.sum(0))
        parts[2].copy_(outer[2])
        d_x = torch.mm(all_d, weights)
        d_weights: tuple[Tensor | None, ...] = (None, None, None)
        if any(ctx.needs_input_grad[1:4]):
            d_weights = matrix_gradient(all_d, x).split(ctx.sizes)
        return d_x, *d_weights, *gains, None, None, None


def _joined(*weights: Tensor) -> Tensor:
    """Matrices one above the other, as bfloat16."""
    out = weights[0].new_empty(sum(map(len, weights)), weights[0].shape[1], dtype=Half)
    at = 0
    for w in weights:
        out[at : at + len(w)].copy_(w.detach())
        at += len(w)
    return out


def _kernels() -> Any:
    return library("layers")
