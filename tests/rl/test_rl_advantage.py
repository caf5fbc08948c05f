"""Advantages and normalisations against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmctl.rl.advantage import (
    EPSILON,
    advantages,
    batch_relative,
    gae,
    group_relative,
    has_spread,
    leave_one_out,
    overlong,
    token_weights,
    whiten,
)


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
    assert mean("sum") == pytest.approx((4 * 1 + 2 * 4) / 2)


def test_leave_one_out_is_the_difference_to_the_others_mean() -> None:
    found = leave_one_out(torch.tensor([[1.0, 0.0, 0.5]]))
    assert found.tolist()[0] == pytest.approx([1.0 - 0.25, 0.0 - 0.75, 0.5 - 0.5])
    assert leave_one_out(torch.tensor([[1.0, math.nan]])).tolist() == [[0.0, 0.0]]
    assert leave_one_out(torch.tensor([[1.0, math.nan, 0.0]])).tolist() == [[1.0, 0.0, -1.0]]


def test_batch_relative_and_no_baseline() -> None:
    rewards = torch.tensor([[1.0, 1.0], [0.0, math.nan]])
    assert batch_relative(rewards).flatten().tolist() == pytest.approx([1 / 3, 1 / 3, -2 / 3, 0.0])
    std = math.sqrt(2 * (1 / 9) / 2 + (4 / 9) / 2)
    assert float(batch_relative(rewards, scale=True)[0, 0]) == pytest.approx(1 / 3 / (std + EPSILON))
    assert advantages(rewards, "none", False).tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_gae_by_hand() -> None:
    # Three tokens of the model, one of a tool between them, and padding. V: .5 .4 .2; reward 1 at the last.
    values = torch.tensor([[9.0, 0.5, 9.0, 0.4, 0.2, 9.0]])
    mask = torch.tensor([[False, True, False, True, True, False]])
    rewards = torch.tensor([[0.0, -0.1, 7.0, 0.0, 1.0, 7.0]])
    found, returns = gae(rewards, values, mask, gamma=0.9, lam=0.5)
    third = 1.0 - 0.2
    second = 0.9 * 0.2 - 0.4 + 0.45 * third
    first = -0.1 + 0.9 * 0.4 - 0.5 + 0.45 * second
    assert found.tolist()[0] == pytest.approx([0, first, 0, second, third, 0])
    assert returns.tolist()[0] == pytest.approx([0, first + 0.5, 0, second + 0.4, third + 0.2, 0])


@given(st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.booleans()), min_size=1, max_size=9))
def test_gae_against_sums(tokens: list[tuple[float, float, bool]]) -> None:
    rewards, values = (torch.tensor([[t[i] for t in tokens]], dtype=torch.float64) for i in (0, 1))
    mask = torch.tensor([[t[2] for t in tokens]])
    kept = [(r, v) for r, v, m in tokens if m]
    gone, returns = gae(rewards, values, mask, 1.0, 1.0)  # lambda 1: what is still to come, less the value
    to_come = [sum(r for r, _ in kept[i:]) for i in range(len(kept))]
    assert gone[mask].tolist() == pytest.approx([s - v for s, (_, v) in zip(to_come, kept, strict=True)], abs=1e-9)
    assert returns[mask].tolist() == pytest.approx(to_come, abs=1e-9)
    short, _ = gae(rewards, values, mask, 0.9, 0.0)  # lambda 0: one step
    after = [*[v for _, v in kept], 0.0][1:] if kept else []
    expected = [r + 0.9 * n - v for (r, v), n in zip(kept, after, strict=True)]
    assert short[mask].tolist() == pytest.approx(expected, abs=1e-9)


def test_whitening_is_over_the_masked_entries_alone() -> None:
    values = torch.tensor([[1.0, 3.0, 99.0], [5.0, 99.0, 99.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    found = whiten(values, mask)
    assert found[mask].tolist() == pytest.approx([-1.0, 0.0, 1.0])  # mean 3, Bessel's deviation 2
    assert found[~mask].abs().max() == 0
    assert whiten(values, mask, shift=False)[mask].tolist() == pytest.approx([2.0, 3.0, 4.0])
    alone = torch.tensor([True, False, False])
    assert torch.isfinite(whiten(values[0], alone)).all()
    assert torch.isfinite(whiten(values[0], torch.zeros(3, dtype=torch.bool))).all()


def test_overlong_falls_linearly_in_the_buffer() -> None:
    found = overlong(torch.tensor([10.0, 48.0, 56.0, 64.0]), longest=64, buffer=16)
    assert found.tolist() == pytest.approx([0.0, 0.0, -0.5, -1.0])
