"""Next-token cross-entropy, at the trained positions only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.train.batch import Batch

# Positions a piece of the head and softmax. Measured for 4,096 positions and tokens, both passes on two cores: 52 ms
# in pieces of 512, 83 in pieces of 1,024, 99 in one. The float32 logits of a piece should stay near the caches.
CHUNK = 512


@dataclass
class Loss:
    """A micro-batch's part of a loss: `total` summed over `count` units (trained positions, pairs, ...).

    The step's gradient is that of the sum of totals over all micro-batches divided by the sum of their counts, so how a
    batch is cut into micro-batches does not matter. `logs` are sums over the same units.
    """

    total: Tensor
    count: float | Tensor
    logs: dict[str, float] = field(default_factory=dict)


def lm_loss(model: nn.Module, batch: Batch) -> Loss:
    """Weighted cross-entropy of `batch.targets`, in nats."""
    hidden = model(batch.ids, batch.positions, batch.segments).flatten(0, 1)
    targets, weights = batch.targets.flatten(), batch.weights.flatten()
    if batch.trained is not None:
        hidden, targets, weights = (x.index_select(0, batch.trained) for x in (hidden, targets, weights))
    return Loss(cross_entropy(model, hidden, targets, weights), weights.sum())


def cross_entropy(model: Any, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The sum of weights x cross-entropy over N positions: hidden (N, D), targets (N,), weights (N,) -> ()."""
    return _HeadLoss.apply(model.logits, hidden, targets, weights, model.head)


class _HeadLoss(torch.autograd.Function):
    """Head, softmax and cross-entropy piece by piece, each piece's gradient taken at once: no more than one piece of
    logits is ever held. (Liger, torchtitan's chunked loss and others do the same.)
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, weights: Tensor, head: Tensor
    ) -> Tensor:
        total, needed = torch.zeros((), device=hidden.device), any(ctx.needs_input_grad)
        d_hidden = torch.empty_like(hidden) if needed else None
        d_head = torch.zeros_like(head) if needed else None
        for at in range(0, len(hidden), CHUNK):
            piece = slice(at, at + CHUNK)
            h = hidden[piece].detach().requires_grad_(needed)
            with torch.set_grad_enabled(needed):
                losses = F.cross_entropy(logits(h).float(), targets[piece], reduction="none")
                part = (losses * weights[piece]).sum()
            total += part.detach()
            if d_hidden is not None and d_head is not None:
                d_hidden[piece], d_head_piece = torch.autograd.grad(part, (h, head))
                d_head += d_head_piece
        if needed:
            ctx.save_for_backward(d_hidden, d_head)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        d_hidden, d_head = ctx.saved_tensors
        return None, d_hidden * outer[0], None, None, d_head * outer[0]
