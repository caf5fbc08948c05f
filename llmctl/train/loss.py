"""Next-token cross-entropy, at the trained positions only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.train.batch import Batch

# Positions a piece of the head and softmax: 512 x 8,192 logits are 16 MB in float32, which stays near the caches.
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
    total = hidden.new_zeros((), dtype=torch.float32)
    for h, t, w in zip(hidden.split(CHUNK), targets.split(CHUNK), weights.split(CHUNK), strict=True):
        total = total + (F.cross_entropy(model.logits(h).float(), t, reduction="none") * w).sum()
    return total
