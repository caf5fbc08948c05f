"""The loss against numbers worked by hand."""

from __future__ import annotations

from itertools import permutations
from math import exp, log

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from llmctl.rm.batches import collate
from llmctl.rm.config import LossSettings
from llmctl.rm.data import Ranking
from llmctl.rm.loss import RankingLoss, bradley_terry, centering, davidson, plackett_luce
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


def loss(**settings: float | str) -> RankingLoss:
    return RankingLoss(LossSettings.model_validate(settings))


def softplus(x: float) -> float:
    return log(1 + exp(x))


def test_bradley_terry_by_hand() -> None:
    losses = bradley_terry(torch.tensor([0.0, 1.0, -2.0, 6e4]))
    assert losses.tolist() == pytest.approx([log(2), softplus(-1), softplus(2), 0.0])
    assert bradley_terry(torch.tensor([-400.0])).item() == 400  # large, never infinite
    assert bradley_terry(torch.ones(1).bfloat16()).dtype == torch.float32


def test_the_gradient_pulls_the_two_apart_with_equal_force() -> None:
    model = Given(0.5, -0.25)
    loss()(model, collate([ranking(0, 1)])).total.backward()
    force = 1 / (1 + exp(0.75))
    assert model.scores.grad.tolist() == pytest.approx([-force, force])


def test_a_ranking_is_the_mean_of_its_ordered_pairs_and_counts_once() -> None:
    batch = collate([ranking(2, 0, 1), ranking(1, 0)])
    found = loss()(Given(0.0, 2.0, 1.0, 5.0, 4.0), batch)
    three = (softplus(-1) + softplus(-2) + softplus(-1)) / 3
    assert found.total.item() == pytest.approx(three + softplus(1)) and float(found.count) == pytest.approx(2)
    assert found.logs["accuracy"] == pytest.approx(1.0)  # the first right in all pairs, the second in none
    assert found.logs["margin"] == pytest.approx((1 + 2 + 1) / 3 - 1)


def test_ties_are_no_pairs() -> None:
    tied = ranking(0, 1, 0)
    assert tied.pairs == [(0, 1), (2, 1)]
    found = loss()(Given(3.0, 1.0, -7.0), collate([tied]))
    assert found.total.item() == pytest.approx((softplus(-2) + softplus(8)) / 2)


def test_equal_scores_are_not_right() -> None:
    assert loss()(Given(1.0, 1.0), collate([ranking(0, 1)])).logs["accuracy"] == 0


def test_centering_by_hand() -> None:
    assert centering(torch.tensor([3.0, 1.0]), torch.tensor([-3.0, 2.0])).tolist() == [0, 9]
    found = loss(center=0.01)(Given(3.0, 1.0), collate([ranking(0, 1)]))
    assert found.total.item() == pytest.approx(softplus(-2) + 0.01 * 16)


def test_davidson_by_hand() -> None:
    """P(better) : P(tie) : P(worse) = sqrt(a/b) : nu : sqrt(b/a) of strengths a and b."""
    for margin, nu in ((0.0, 1.0), (1.5, 0.4), (-2.0, 2.0)):
        parts = [exp(margin / 2), nu, exp(-margin / 2)]
        losses = davidson(torch.tensor([margin, margin, -margin]), torch.tensor([False, True, False]), nu)
        assert losses.tolist() == pytest.approx([-log(p / sum(parts)) for p in parts])
        assert (losses[2] - losses[0]).item() == pytest.approx(margin)  # the odds are Bradley and Terry's
        assert exp(-davidson(torch.zeros(1), torch.tensor([True]), nu).item()) == pytest.approx(nu / (2 + nu))
    large = davidson(torch.tensor([1e4, -1e4]), torch.tensor([False, False]), 1.0)
    assert large.tolist() == pytest.approx([0, 1e4])


def test_davidson_with_hardly_any_ties_is_bradley_terry() -> None:
    margins = torch.linspace(-4, 4, 9)
    found = davidson(margins, torch.zeros(9, dtype=torch.bool), 1e-9)
    assert torch.allclose(found, bradley_terry(margins), atol=1e-6)


def test_a_tie_pulls_scores_together() -> None:
    model = Given(1.0, -1.0)
    loss(ties=1.0)(model, collate([ranking(0, 0)], ties=True)).total.backward()
    force = (exp(1) - exp(-1)) / 2 / (exp(1) + exp(-1) + 1)  # the derivative of log(2 cosh(m/2) + 1) at m = 2
    assert model.scores.grad.tolist() == pytest.approx([force, -force])


def test_ties_count_as_pairs_where_they_are_compared() -> None:
    found = loss(ties=1.0)(Given(2.0, 0.0, 2.0), collate([ranking(0, 1, 0)], ties=True))
    whole = exp(1) + exp(-1) + 1
    by_hand = (-log(exp(1) / whole) * 2 + log(3)) / 3
    assert found.total.item() == pytest.approx(by_hand) and float(found.count) == pytest.approx(1)
    assert found.logs["accuracy"] == pytest.approx(1) and found.logs["margin"] == pytest.approx(2)  # of strict pairs


def test_plackett_luce_by_hand() -> None:
    """Three replies, the best first: chosen from three, then from two."""
    scores = [0.3, -1.0, 2.0]
    found = loss(form="plackett-luce")(Given(*scores), collate([ranking(0, 1, 2)]))
    e = [exp(s) for s in scores]
    by_hand = -(log(e[0] / sum(e)) + log(e[1] / (e[1] + e[2])))
    assert found.total.item() == pytest.approx(by_hand / 2)  # two choices, one prompt
    two = loss(form="plackett-luce")(Given(1.0, 3.0), collate([ranking(0, 1)]))
    assert two.total.item() == pytest.approx(softplus(2))  # a pair is Bradley and Terry's


def test_plackett_luce_gives_chances_to_all_orders_that_sum_to_one() -> None:
    scores, whole = [0.5, -0.3, 1.7, 0.0], 0.0
    for ranks in permutations(range(4)):
        found = loss(form="plackett-luce")(Given(*scores), collate([ranking(*ranks)]))
        whole += exp(-3 * found.total.item())
    assert whole == pytest.approx(1, abs=1e-5)


def test_a_reply_is_not_chosen_from_those_it_is_tied_with() -> None:
    batch = collate([ranking(0, 0, 1)])
    found = plackett_luce(torch.tensor([1.0, 4.0]), batch.extra["choice"])
    assert found.tolist() == pytest.approx([softplus(-1), softplus(-4)], rel=1e-5)


def test_the_margin_is_in_proportion_to_the_preference() -> None:
    found = loss(margin=3.0)(Given(2.0, 1.0, 0.0), collate([ranking(0, 1, 2)]))
    by_hand = (softplus(-(1 - 1.5)) * 2 + softplus(-(2 - 3))) / 3  # neighbours are half as far apart as the ends
    assert found.total.item() == pytest.approx(by_hand)
    said = Ranking(ranking(0, 1).replies, (0, 1), 2, margin=0.25)
    assert loss(margin=2.0)(Given(1.0, 0.0), collate([said])).total.item() == pytest.approx(softplus(-0.5))
    assert found.logs["margin"] == pytest.approx((1 + 1 + 2) / 3)  # what is logged is the scores' own


@pytest.mark.parametrize(
    "method", [loss(center=0.1), loss(form="plackett-luce"), loss(ties=0.5), loss(margin=1.0)], ids=str
)
def test_adding_a_constant_changes_nothing_but_centering(method: RankingLoss) -> None:
    batch = collate([ranking(0, 1, 2), ranking(1, 0)])
    scores = torch.randn(5, generator=torch.Generator().manual_seed(0))
    one, other = (method(Given(*(scores + c).tolist()), batch).total.item() for c in (0.0, 5.0))
    assert (one == pytest.approx(other, abs=1e-4)) == (method.settings.center == 0)


@pytest.mark.parametrize(
    "method", [loss(center=0.1), loss(form="plackett-luce"), loss(ties=0.5), loss(margin=1.0)], ids=str
)
def test_how_prompts_are_cut_into_micro_batches_does_not_matter(method: RankingLoss) -> None:
    scores = torch.randn(7).tolist()
    parts = [ranking(0, 1, 2), ranking(1, 0), ranking(0, 1)]
    whole = method(Given(*scores), collate(parts))
    each: list[Loss] = [
        method(Given(*scores[a:b]), collate([r])) for r, a, b in zip(parts, (0, 3, 5), (3, 5, 7), strict=True)
    ]
    assert sum(e.total.item() for e in each) == pytest.approx(whole.total.item())
    assert sum(float(e.count) for e in each) == pytest.approx(float(whole.count))
