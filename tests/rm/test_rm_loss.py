"""The loss against numbers worked by hand."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llmctl.rm.batches import collate
from llmctl.rm.data import Ranking
from llmctl.rm.loss import RankingLoss, bradley_terry, centering
from llmctl.train.loss import Loss


class Given(nn.Module):
    """Scores that the test sets, whatever is read."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        return self.scores


def ranking(*ranks: int) -> Ranking:
    return Ranking(tuple(np.arange(1, 4 + i, dtype=np.int32) for i in range(len(ranks))), ranks, 2)


def softplus(x: float) -> float:
    return log(1 + exp(x))


def test_bradley_terry_by_hand() -> None:
    losses = bradley_terry(torch.tensor([0.0, 2.0, -1.0, 3e4]), torch.tensor([0.0, 1.0, 1.0, -3e4]))
    assert losses.tolist() == pytest.approx([log(2), softplus(-1), softplus(2), 0.0])
    assert bradley_terry(torch.tensor([-200.0]), torch.tensor([200.0])).item() == 400  # large, never infinite
    assert bradley_terry(torch.ones(1).bfloat16(), torch.ones(1).bfloat16()).dtype == torch.float32


def test_the_gradient_pulls_the_two_apart_with_equal_force() -> None:
    model = Given(0.5, -0.25)
    RankingLoss()(model, collate([ranking(0, 1)])).total.backward()
    force = 1 / (1 + exp(0.75))
    assert model.scores.grad.tolist() == pytest.approx([-force, force])


def test_a_ranking_is_the_mean_of_its_ordered_pairs_and_counts_once() -> None:
    batch = collate([ranking(2, 0, 1), ranking(1, 0)])
    found = RankingLoss()(Given(0.0, 2.0, 1.0, 5.0, 4.0), batch)
    three = (softplus(-1) + softplus(-2) + softplus(-1)) / 3
    assert found.total.item() == pytest.approx(three + softplus(1)) and float(found.count) == pytest.approx(2)
    assert found.logs["accuracy"] == pytest.approx(1.0)  # the first right in all pairs, the second in none
    assert found.logs["margin"] == pytest.approx((1 + 2 + 1) / 3 - 1)


def test_ties_are_no_pairs() -> None:
    tied = ranking(0, 1, 0)
    assert tied.pairs == [(0, 1), (2, 1)]
    found = RankingLoss()(Given(3.0, 1.0, -7.0), collate([tied]))
    assert found.total.item() == pytest.approx((softplus(-2) + softplus(8)) / 2)


def test_equal_scores_are_not_right() -> None:
    assert RankingLoss()(Given(1.0, 1.0), collate([ranking(0, 1)])).logs["accuracy"] == 0


def test_centering_by_hand() -> None:
    assert centering(torch.tensor([3.0, 1.0]), torch.tensor([-3.0, 2.0])).tolist() == [0, 9]
    found = RankingLoss(0.01)(Given(3.0, 1.0), collate([ranking(0, 1)]))
    assert found.total.item() == pytest.approx(softplus(-2) + 0.01 * 16)


def test_how_prompts_are_cut_into_micro_batches_does_not_matter() -> None:
    scores = torch.randn(7).tolist()
    parts = [ranking(0, 1, 2), ranking(1, 0), ranking(0, 1)]
    whole = RankingLoss(0.1)(Given(*scores), collate(parts))
    each: list[Loss] = [
        RankingLoss(0.1)(Given(*scores[a:b]), collate([r])) for r, a, b in zip(parts, (0, 3, 5), (3, 5, 7), strict=True)
    ]
    assert sum(e.total.item() for e in each) == pytest.approx(whole.total.item())
    assert sum(float(e.count) for e in each) == pytest.approx(float(whole.count))
