"""Advantages: how much better a reply is than was to be expected. Pure functions, each with its paper."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4  # of the division by the standard deviation; TRL's value (verl 1e-6, open-instruct 1e-8)


def group_relative(rewards: Tensor, scale: bool = True) -> Tensor:
    """GRPO (arXiv 2402.03300, section 4.1.2): A_i = (r_i - mean) / (std + EPSILON) within each group.

    `rewards` (P, G) float, NaN where a reply could not be scored: it is left out of the mean and has advantage 0.
    The standard deviation is Bessel's (n - 1), as in TRL and verl. Without `scale`, Dr. GRPO (arXiv 2503.20783):
    r_i - mean.
    """
    scored = ~rewards.isnan()
    count = scored.sum(-1, keepdim=True)
    mean = rewards.nan_to_num(0.0).sum(-1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(scored, rewards.nan_to_num(0.0) - mean, 0.0)
    if not scale:
        return centred
    std = (centred.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return centred / (std + EPSILON)


def has_spread(rewards: Tensor) -> Tensor:
    """(P,) bool: whether the scored replies of each group (P, G) differ. A group where they do not teaches nothing."""
    low = rewards.nan_to_num(float("inf")).amin(-1)
    high = torch.where(rewards.isnan(), float("-inf"), rewards).amax(-1)
    return high - low > 1e-6


def token_weights(mask: Tensor, normalise: str, max_new_tokens: int) -> tuple[Tensor, Tensor]:
    """How much each trained token counts, and how many units (N,) each reply adds to the denominator.

    `mask` (N, T) bool: trained tokens. A reply without any counts nowhere. The loss is sum(weights * loss) by
    sum(units): "sequence" is the mean over replies of the mean over tokens (arXiv 2402.03300, equation 3), "token" the
    mean over tokens (DAPO, arXiv 2503.14476, equation 8), "constant" the sum by N * max_new_tokens (Dr. GRPO).
    """
    lengths = mask.sum(-1, keepdim=True)
    present = (lengths > 0).float()
    if normalise == "sequence":
        return mask / lengths.clamp(min=1), present[:, 0]
    if normalise == "token":
        return mask.float(), lengths[:, 0].float()
    assert normalise == "constant", normalise
    return mask / max_new_tokens, present[:, 0]
