"""What one forward and backward pass sees."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Batch:
    """A micro-batch: B rows of T tokens.

    `targets[b, t]` is what position t of row b should predict (the label shift is already made) and `weights[b, t]`
    how much that counts; 0 means not trained on. `positions` None means 0..T-1 in every row. `segments` None means that
    a row is one sequence; otherwise attention stays within equal numbers, and padding has a number of its own.
    """

    ids: Tensor  # (B, T) int64
    targets: Tensor  # (B, T) int64
    weights: Tensor  # (B, T) float32
    positions: Tensor | None = None  # (B, T) int64
    segments: Tensor | None = None  # (B, T) int64
    extra: dict[str, Tensor] = field(default_factory=dict)  # what a loss needs beyond that (advantages, lengths, ...)
    tokens: int = -1  # tokens that are no padding, for the speed that is shown; -1 = all of them
    divided: bool = False  # made for this process alone: torchrun's processes have others, nothing is to be cut
    trained: Tensor | None = None  # flat indices of the positions with a weight; None = every one of them

    def __post_init__(self) -> None:
        assert self.ids.shape == self.targets.shape == self.weights.shape, "ids, targets and weights differ in shape"
        if self.tokens < 0:
            self.tokens = self.ids.numel()
        if self.trained is None:
            # Found here, where the tensors are still in host memory: on a GPU the same question would stall the queue.
            found = self.weights.flatten().nonzero().squeeze(1)
            self.trained = None if found.numel() == self.weights.numel() else found

    def to(self, device: torch.device) -> Batch:
        """The same batch in another memory."""
        if self.ids.device == device:
            return self
        moved: dict[str, Any] = {f.name: _move(getattr(self, f.name), device) for f in fields(self)}
        return replace(self, **moved)


def _move(value: object, device: torch.device) -> object:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {k: _move(v, device) for k, v in value.items()}
    return value
