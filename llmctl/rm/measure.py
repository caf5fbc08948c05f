"""How well a reward model ranks replies it has not learned from, and its scores brought to a common scale."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log1p, sqrt
from statistics import fmean, pstdev
from typing import Any

import torch

from llmctl.model.transformer import RewardModel
from llmctl.rm.batches import cuts, padded
from llmctl.rm.data import Ranking
from llmctl.train.device import autocast
from llmctl.verify.statistics import wilson

Scores = list[list[float]]  # of each ranking, a score a reply


@torch.inference_mode()
def score_all(model: RewardModel, rankings: Sequence[Ranking], precision: str, micro_tokens: int) -> Scores:
    """The scores of every reply of `rankings`, in their order."""
    device = next(model.parameters()).device
    found: dict[int, list[float]] = {}
    for part in cuts(rankings, micro_tokens):
        ids, lengths = padded([reply for ranking in part for reply in ranking.replies])
        with autocast(precision, device):
            scores = iter(model(ids.to(device), lengths.to(device)).tolist())
        found |= {id(ranking): [next(scores) for _ in ranking.replies] for ranking in part}
    return [found[id(ranking)] for ranking in rankings]


def accuracy(rankings: Sequence[Ranking], scores: Scores) -> dict[str, Any]:
    """The share of ordered pairs whose better reply has the higher score, with its 95 % interval; equal is wrong.

    The pairs of one prompt are not independent, so with rankings of three and more the interval is too narrow.
    """
    margins = [s[i] - s[j] for r, s in zip(rankings, scores, strict=True) for i, j in r.pairs]
    right = sum(m > 0 for m in margins)
    low, high = wilson(right, len(margins))
    loss = fmean(log1p(exp(-abs(m))) + max(-m, 0.0) for m in margins)
    return {"pairs": len(margins), "accuracy": right / len(margins), "low": low, "high": high, "loss": loss}


def by_kind(rankings: Sequence[Ranking], scores: Scores) -> dict[str, dict[str, Any]]:
    """The accuracy on the rows of each kind, where rows have one."""
    kinds = sorted({r.kind for r in rankings if r.kind})
    both = list(zip(rankings, scores, strict=True))
    return {k: accuracy([r for r, _ in both if r.kind == k], [s for r, s in both if r.kind == k]) for k in kinds}


def length_bias(rankings: Sequence[Ranking], scores: Scores) -> dict[str, float | None]:
    """How much of the ranking is length: the correlation of score and reply length in tokens, over all replies (None
    where one of them never varies), and what always choosing the longer reply would get right.
    """
    lengths = [[float(len(ids) - r.prompt) for ids in r.replies] for r in rankings]
    longer = accuracy(rankings, lengths)["accuracy"]
    found = correlation([n for some in lengths for n in some], [s for some in scores for s in some])
    return {"length_correlation": found, "longer_is_better": longer}


def correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Pearson's r; None where either never varies."""
    x, y = fmean(xs), fmean(ys)
    spread = sqrt(sum((a - x) ** 2 for a in xs) * sum((b - y) ** 2 for b in ys))
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread if spread else None


@torch.no_grad()
def normalise(model: RewardModel, scores: Scores) -> tuple[float, float]:
    """Scale the head so that `scores` would have standard deviation 1: (gain, bias).

    Adding `bias` to a score brings their mean to 0 (arXiv 1909.08593, section 2.2); the head itself has none in Hugging
    Face's layout. Rewards of different models, and weights beside them, then mean the same.
    """
    values = [s for some in scores for s in some]
    gain = 1 / (pstdev(values) or 1.0)
    model.score.weight.mul_(gain)
    return gain, -gain * fmean(values)
