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

from llmctl.train.loss import CHUNK


def logprobs(model: Any, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `targets` (N,) and entropies (N,), in nats, float32, from hidden states (N, D).

    Both at `temperature`. Entropies have no gradient: nothing is trained on them.
    """
    compiled = hasattr(model, "_orig_mod") or getattr(model, "compiled_blocks", False)
    cap = getattr(model, "softcap", 0.0)
    found: tuple[Tensor, Tensor] = _Logprobs.apply(hidden, targets, model.head, cap, temperature, compiled)
    return found


def measured(logits: Tensor, targets: Tensor, cap: float, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (N,) from the head's outputs (N, V)."""
    logp = torch.log_softmax(_bounded(logits, cap) / temperature, -1)
    return logp.gather(1, targets[:, None]).squeeze(1), -(logp.exp() * logp).sum(-1)


def turned(logits: Tensor, targets: Tensor, outer: Tensor, cap: float, temperature: float) -> None:
    """The gradient of sum(outer * logp) by the logits (N, V), in their place."""
    x = _bounded(logits, cap)
    p = torch.softmax(x / temperature, -1)
    hit = torch.arange(x.shape[1], device=x.device) == targets[:, None]
    gradient = (hit.float() - p) * (outer / temperature)[:, None]
    logits.copy_(gradient * (1 - (x / cap) ** 2) if cap else gradient)


def turned_in_place(logits: Tensor, targets: Tensor, outer: Tensor, cap: float, temperature: float) -> None:
    """The same where nothing is compiled, in fewer passes."""
    if cap:
        return turned(logits, targets, outer, cap, temperature)
    p = torch.softmax(logits.float().div_(temperature), -1)
    p[torch.arange(len(p), device=p.device), targets] -= 1
    logits.copy_(p.mul_((-outer / temperature)[:, None]))


def _bounded(logits: Tensor, cap: float) -> Tensor:
    x = logits.float()
    return cap * torch.tanh(x / cap) if cap else x


def _add(total: Tensor, part: Tensor) -> None:
    total.add_(part)


@cache
def _fused() -> Any:
    return tuple(torch.compile(f, dynamic=True) for f in (measured, turned, _add))


class _Logprobs(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, targets: Tensor, head: Tensor, cap: float, temperature: float, compiled: bool
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.dtype
        h, w = hidden.to(dtype), head.to(dtype)
        ctx.save_for_backward(h, targets, head)
        ctx.how, ctx.given = (cap, temperature, compiled), hidden.dtype
        measure, size = _fused()[0] if compiled else measured, _size(compiled)
        logp, entropy = (torch.empty(len(h), device=h.device) for _ in range(2))
        for at in range(0, len(h), size):
            piece = slice(at, at + size)
            logp[piece], entropy[piece] = measure(h[piece] @ w.T, targets[piece], cap, temperature)
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx: Any, outer: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        h, targets, head = ctx.saved_tensors
        cap, temperature, compiled = ctx.how
        turn, add = _fused()[1:] if compiled else (turned_in_place, _add)
        w, size = head.to(h.dtype), _size(compiled)
        d_hidden = torch.empty_like(h)
        d_head = torch.zeros_like(head) if ctx.needs_input_grad[2] else None
        for at in range(0, len(h), size):
            piece = slice(at, at + size)
            logits = h[piece] @ w.T
            turn(logits, targets[piece], outer[piece], cap, temperature)
            torch.mm(logits, w, out=d_hidden[piece])
            if d_head is not None:
                add(d_head, logits.T @ h[piece])
        return d_hidden.to(ctx.given), None, d_head, None, None, None


def _size(compiled: bool) -> int:
    return 2 * CHUNK if compiled else CHUNK
