"""Log-probabilities and entropies of chosen tokens from hidden states, a piece of positions at a time.

A policy's loss needs both of every trained token before it knows any gradient, so the logits cannot be turned into
gradients where they are first made, as sft's loss does. They are made twice instead: no more than one piece of them is
ever held, where autograd would keep three copies in float32 of all.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from llmctl.native import logprobs as kernels
from llmctl.native.gradient import matrix_gradient
from llmctl.train.loss import CHUNK


def logprobs(model: Any, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `targets` (N,) and entropies (N,), in nats, float32, from hidden states (N, D).

    Both at `temperature`. Entropies have no gradient: nothing is trained on them.
    """
    compiled = hasattr(model, "_orig_mod") or getattr(model, "compiled_blocks", False)
    cap = getattr(model, "softcap", 0.0)
    found: tuple[Tensor, Tensor] = _Logprobs.apply(hidden, targets, model.head, cap, temperature, compiled)
    return found


def measured(logits: Tensor, targets: Tensor, cap: float, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """From the head's outputs (N, V), (N,) each: log-probabilities, entropies, and the logs of the denominators."""
    x = _bounded(logits, cap) / temperature
    found = torch.log_softmax(x, -1)
    logp, right = (y.gather(1, targets[:, None]).squeeze(1) for y in (found, x))
    return logp, -(found.exp() * found).sum(-1), right - logp


def turned(logits: Tensor, targets: Tensor, outer: Tensor, total: Tensor, cap: float, temperature: float) -> None:
    """The gradient of sum(outer * logp) by the logits (N, V), in their place; `total` as `measured` gives it."""
    x = _bounded(logits, cap)
    hit = torch.arange(x.shape[1], device=x.device) == targets[:, None]
    gradient = (hit.float() - torch.exp(x / temperature - total[:, None])) * (outer / temperature)[:, None]
    logits.copy_(gradient * (1 - (x / cap) ** 2) if cap else gradient)


def _bounded(logits: Tensor, cap: float) -> Tensor:
    x = logits.float()
    return cap * torch.tanh(x / cap) if cap else x


def _add(total: Tensor, d_logits: Tensor, hidden: Tensor) -> None:
    total.add_(d_logits.T @ hidden)


def _add_natively(total: Tensor, d_logits: Tensor, hidden: Tensor) -> None:
    matrix_gradient(d_logits, hidden, total)


@cache
def _fused() -> Any:
    return tuple(torch.compile(f, dynamic=True) for f in (measured, turned))


def _ways(dtype: torch.dtype, device: torch.device, compiled: bool) -> tuple[Any, Any, Any, int]:
    """How to measure logits, turn them and add to the head's gradient, and for how many positions at once."""
    if kernels.suits(dtype, device):
        return kernels.measured, kernels.turned, _add_natively, 2 * CHUNK
    return (*_fused(), _add, 2 * CHUNK) if compiled else (measured, turned, _add, CHUNK)


class _Logprobs(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, targets: Tensor, head: Tensor, cap: float, temperature: float, compiled: bool
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.dtype
        h, w = hidden.to(dtype), head.to(dtype)
        measure, _, _, size = _ways(dtype, h.device, compiled)
        logp, entropy, total = (torch.empty(len(h), device=h.device) for _ in range(3))
        for at in range(0, len(h), size):
            piece = slice(at, at + size)
            logp[piece], entropy[piece], total[piece] = measure(h[piece] @ w.T, targets[piece], cap, temperature)
        ctx.save_for_backward(h, targets, head, total)
        ctx.how, ctx.given = (cap, temperature, compiled), hidden.dtype
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx: Any, outer: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        h, targets, head, total = ctx.saved_tensors
        cap, temperature, compiled = ctx.how
        _, turn, add, size = _ways(h.dtype, h.device, compiled)
        w, d_hidden = head.to(h.dtype), torch.empty_like(h)
        d_head = torch.zeros_like(head) if ctx.needs_input_grad[2] else None
        space = h.new_empty(min(size, len(h)), len(w))
        for at in range(0, len(h), size):
            piece = slice(at, at + size)
            logits = torch.mm(h[piece], w.T, out=space[: len(h) - at])
            turn(logits, targets[piece], outer[piece], total[piece], cap, temperature)
            torch.mm(logits, w, out=d_hidden[piece])
            if d_head is not None:
                add(d_head, logits, h[piece])
        return d_hidden.to(ctx.given), None, d_head, None, None, None
