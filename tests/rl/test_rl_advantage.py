"""Advantages and normalisations against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmctl.rl.advantage import EPSILON, group_relative, has_spread, token_weights


def test_group_relative_by_hand() -> None:
    # Mean 0.25; deviations -.25 -.25 .75 -.25; sum of squares .75; Bessel: sqrt(.75 / 3) = 0.5.
    found = group_relative(torch.tensor([[0.0, 0.0, 1.0, 0.0]]))
    assert found.tolist()[0] == pytest.approx([-0.25 / 0.5001, -0.25 / 0.5001, 0.75 / 0.5001, -0.25 / 0.5001])
    assert EPSILON == 1e-4


def test_without_scale_it_is_the_difference_to_the_mean() -> None:
    assert group_relative(torch.tensor([[2.0, 0.0, 1.0]]), scale=False).tolist() == [[1.0, -1.0, 0.0]]


def test_each_group_is_its_own_and_an_equal_one_teaches_nothing() -> None:
    found = group_relative(torch.tensor([[1.1, 1.1, 1.1], [0.0, 1.0, 2.0]]))
    assert found[0].abs().max() < 1e-3
    assert found[1].tolist() == pytest.approx([-1 / 1.0001, 0.0, 1 / 1.0001])


def test_what_could_not_be_scored_is_outside_the_baseline() -> None:
    nan = math.nan
    found = group_relative(torch.tensor([[1.0, nan, 0.0], [nan, nan, nan]]), scale=False)
    assert found.tolist() == [[0.5, 0.0, -0.5], [0.0, 0.0, 0.0]]
    assert has_spread(torch.tensor([[1.0, nan, 1.0], [nan, nan, nan], [0.0, nan, 1.0]])).tolist() == [
        False,
        False,
        True,
    ]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(-3, 3), st.floats(0.5, 4))
def test_shifting_rewards_changes_nothing_and_advantages_sum_to_zero(
    rewards: list[float], shift: float, by: float
) -> None:
    r = torch.tensor([rewards], dtype=torch.float64)
    plain = group_relative(r, scale=False)
    assert plain.sum().abs() < 1e-9
    assert torch.allclose(group_relative(r + shift, scale=False), plain, atol=1e-9)
    assert torch.allclose(group_relative(r * by, scale=False), plain * by, atol=1e-9)


def test_token_weights() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    loss = torch.tensor([[1.0, 1, 1, 1], [4, 4, 9, 9], [9, 9, 9, 9]])

    def mean(how: str) -> float:
        weights, units = token_weights(mask, how, 8)
        return float((weights * loss).sum() / units.sum())

    assert mean("sequence") == pytest.approx((1 + 4) / 2)  # the reply without trained tokens is in no denominator
    assert mean("token") == pytest.approx((4 * 1 + 2 * 4) / 6)
    assert mean("constant") == pytest.approx((4 * 1 + 2 * 4) / (2 * 8))
