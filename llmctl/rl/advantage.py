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


def leave_one_out(rewards: Tensor, scale: bool = False) -> Tensor:
    """RLOO (arXiv 2402.14740, section 3.2): A_i = r_i - mean of the others = n/(n-1) (r_i - mean) in each group (P, G).

    NaN as in `group_relative`; a reply alone has advantage 0. `scale` divides as there.
    """
    count = (~rewards.isnan()).sum(-1, keepdim=True)
    return group_relative(rewards, scale) * torch.where(count > 1, count / (count - 1).clamp(min=1), 0.0)


def batch_relative(rewards: Tensor, scale: bool = False) -> Tensor:
    """REINFORCE (Williams 1992) with the mean of the whole batch (P, G) as its baseline; with `scale`, divided by the
    batch's standard deviation (REINFORCE++, arXiv 2501.03262).
    """
    return group_relative(rewards.flatten()[None], scale).view(rewards.shape)


def advantages(rewards: Tensor, kind: str, scale: bool) -> Tensor:
    """The advantages (P, G) of rewards (P, G) against the baseline that `kind` names; 0 where there is no reward."""
    if kind == "none":
        return rewards.nan_to_num(0.0)
    by = {"group": group_relative, "leave-one-out": leave_one_out, "batch": batch_relative}
    return by[kind](rewards, scale)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (arXiv 1506.02438, equation 16): (advantages, returns), (N, T) each.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, where t + 1 is the next token that the
    model itself wrote: what a tool put in between is stepped over (`mask` (N, T) bool is False there, and in prompts
    and padding). After the last one the value is 0. Returns are A + V, before any whitening.
    """
    found = torch.zeros_like(rewards)
    after, carried = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        here = mask[:, t]
        step = rewards[:, t] + gamma * after - values[:, t] + gamma * lam * carried
        carried, after = torch.where(here, step, carried), torch.where(here, values[:, t], after)
        found[:, t] = torch.where(here, step, 0.0)
    return found, torch.where(mask, found + values, 0.0)


def whiten(values: Tensor, mask: Tensor, shift: bool = True) -> Tensor:
    """Mean 0 and (Bessel's) standard deviation 1 over the masked entries, 0 elsewhere (arXiv 1909.08593's code; without
    `shift` the mean stays, as is right for rewards, whose sign says something).
    """
    count = mask.sum()
    mean = torch.where(mask, values, 0.0).sum() / count.clamp(min=1)
    variance = torch.where(mask, (values - mean).square(), 0.0).sum() / (count - 1).clamp(min=1)
    found = (values - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(mask, found if shift else found + mean, 0.0)


def has_spread(rewards: Tensor) -> Tensor:
    """(P,) bool: whether the scored replies of each group (P, G) differ. A group where they do not teaches nothing."""
    low = rewards.nan_to_num(float("inf")).amin(-1)
    high = torch.where(rewards.isnan(), float("-inf"), rewards).amax(-1)
    return high - low > 1e-6


def overlong(lengths: Tensor, longest: int, buffer: int) -> Tensor:
    """DAPO's soft punishment (arXiv 2503.14476, equation 13): 0 up to `longest - buffer` tokens, then down to -1."""
    return -((lengths - (longest - buffer)) / buffer).clamp(0.0, 1.0)


def token_weights(mask: Tensor, normalise: str, max_new_tokens: int) -> tuple[Tensor, Tensor]:
    """How much each trained token counts, and how many units (N,) each reply adds to the denominator.

    `mask` (N, T) bool: trained tokens. A reply without any counts nowhere. The loss is sum(weights * loss) by
    sum(units): "sequence" is the mean over replies of the mean over tokens (arXiv 2402.03300, equation 3), "token" the
    mean over tokens (DAPO, arXiv 2503.14476, equation 8), "constant" the sum by N * max_new_tokens (Dr. GRPO), "sum"
    the mean over replies of the sum over tokens (REINFORCE).
    """
    lengths = mask.sum(-1, keepdim=True)
    present = (lengths > 0).float()
    if normalise == "sequence":
        return mask / lengths.clamp(min=1), present[:, 0]
    if normalise == "token":
        return mask.float(), lengths[:, 0].float()
    assert normalise in ("constant", "sum"), normalise
    return mask / (max_new_tokens if normalise == "constant" else 1), present[:, 0]
