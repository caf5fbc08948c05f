"""How well a reward model ranks replies it has not learned from, how far its chances can be believed, and what of it is
length.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log1p, sqrt
from statistics import fmean
from typing import Any

import torch

from llmctl.model.transformer import RewardModel
from llmctl.rm.batches import cuts, padded
from llmctl.rm.data import Ranking
from llmctl.train.device import autocast
from llmctl.verify.statistics import wilson

Scores = list[list[float]]  # of each ranking, a score a reply
_BINS = 10


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


def margins_of(rankings: Sequence[Ranking], scores: Scores) -> list[list[float]]:
    """Of each ranking, how far the better reply's score lies above the worse one's, for each of its pairs."""
    return [[s[i] - s[j] for i, j in r.pairs] for r, s in zip(rankings, scores, strict=True)]


def accuracy(rankings: Sequence[Ranking], scores: Scores) -> dict[str, Any]:
    """The share of ordered pairs whose better reply has the higher score, with its 95 % interval; equal is wrong."""
    margins = margins_of(rankings, scores)
    flat = [m for some in margins for m in some]
    right = [sum(m > 0 for m in some) for some in margins]
    low, high = interval(right, [len(some) for some in margins])
    loss = fmean(log1p(exp(-abs(m))) + max(-m, 0.0) for m in flat)
    return {"pairs": len(flat), "accuracy": sum(right) / len(flat), "low": low, "high": high, "loss": loss}


def interval(right: Sequence[int], of: Sequence[int]) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of pairs that come in clusters: `right[c]` of `of[c]` pairs of prompt c.

    The pairs of one ranking share replies and are right together, so there are fewer than it seems: their number is
    divided by the design effect, the variance of the share over prompts by that of as many coins (Kish 1965; Rao and
    Scott 1992, Biometrics 48:577). With one pair a prompt it is Wilson's.
    """
    n, hits, clusters = sum(of), sum(right), sum(k > 0 for k in of)
    share = hits / n
    coins = share * (1 - share) / n
    effect = 1.0
    if coins and clusters > 1 and max(of) > 1:
        spread = sum((r - share * k) ** 2 for r, k in zip(right, of, strict=True)) / n**2
        effect = max(1.0, spread * clusters / (clusters - 1) / coins)
    return wilson(hits / effect, n / effect)


def by_kind(rankings: Sequence[Ranking], scores: Scores) -> dict[str, dict[str, Any]]:
    """Accuracy and length on the rows of each kind, where rows have one."""
    found = {}
    for kind in sorted({r.kind for r in rankings if r.kind}):
        mine = [(r, s) for r, s in zip(rankings, scores, strict=True) if r.kind == kind]
        some, their = [r for r, _ in mine], [s for _, s in mine]
        found[kind] = accuracy(some, their) | length_bias(some, their)
    return found


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


def calibration(rankings: Sequence[Ranking], scores: Scores) -> dict[str, Any]:
    """Whether sigmoid(margin) is the chance it says it is: `error`, and `bins` from "cannot tell" (0.5) to "sure" (1).

    A pair's confidence is sigmoid(|margin|), that of the reply it prefers; the expected calibration error is the mean
    distance of confidence and accuracy over bins of equal width, weighted by their pairs (Guo et al. 2017, arXiv
    1706.04599). `error` depends on how many pairs there are: with few, chance alone makes it large.
    """
    margins = [m for some in margins_of(rankings, scores) for m in some]
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(_BINS)]
    for m in margins:
        confidence = 1 / (1 + exp(-min(abs(m), 700)))
        bins[min(int((confidence - 0.5) * 2 * _BINS), _BINS - 1)].append((confidence, m > 0))
    rows = []
    for some in filter(None, bins):
        right = sum(hit for _, hit in some)
        low, high = wilson(right, len(some))
        sure = fmean(confidence for confidence, _ in some)
        rows.append({"pairs": len(some), "confidence": sure, "accuracy": right / len(some), "low": low, "high": high})
    error = sum(row["pairs"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(margins)
    return {"error": error, "bins": rows}
