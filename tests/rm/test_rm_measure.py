"""Measures against numbers worked by hand and independent implementations."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

from llmctl.rm.data import Ranking
from llmctl.rm.measure import accuracy, by_kind, calibration, correlation, interval, length_bias
from llmctl.rm.scale import gain_and_bias
from llmctl.verify.statistics import wilson


def ranking(ranks: tuple[int, ...], lengths: tuple[int, ...], kind: str = "") -> Ranking:
    return Ranking(tuple(np.ones(n, np.int32) for n in lengths), ranks, 2, kind)


ROWS = [ranking((0, 1), (5, 3), "a"), ranking((1, 0, 1), (3, 3, 9), "b"), ranking((0, 1), (4, 5))]
SCORES = [[1.0, 0.0], [2.0, 2.0, -1.0], [0.0, 3.0]]


def test_accuracy_by_hand() -> None:
    found = accuracy(ROWS, SCORES)  # right; a tie and right; wrong
    assert (found["pairs"], found["accuracy"]) == (4, 0.5)
    assert found["loss"] == pytest.approx(sum(log(1 + exp(-m)) for m in (1, 0, 3, -3)) / 4)
    kinds = by_kind(ROWS, SCORES)
    assert {k: (v["pairs"], v["accuracy"]) for k, v in kinds.items()} == {"a": (1, 1.0), "b": (2, 0.5)}
    assert [v["longer_is_better"] for v in kinds.values()] == [1.0, 0.0]


def test_length_bias_by_hand() -> None:
    found = length_bias(ROWS, SCORES)  # longer: right; a tie and wrong; wrong
    assert found["longer_is_better"] == 0.25
    assert found["length_correlation"] == pytest.approx(
        np.corrcoef([3, 1, 1, 1, 7, 2, 3], [1, 0, 2, 2, -1, 0, 3])[0, 1]
    )
    assert correlation([1, 1], [2, 3]) is None


def test_calibration_by_hand() -> None:
    found = calibration(ROWS, SCORES)  # margins 1, 0, 3, -3
    one, three = 1 / (1 + exp(-1)), 1 / (1 + exp(-3))
    bins = [(b["pairs"], b["confidence"], b["accuracy"]) for b in found["bins"]]
    assert bins == [(1, 0.5, 0), (1, pytest.approx(one), 1), (2, pytest.approx(three), 0.5)]
    assert found["error"] == pytest.approx((0.5 + (1 - one) + 2 * (three - 0.5)) / 4)
    assert calibration([ROWS[0]], [[2000.0, -2000.0]])["error"] == 0  # as sure as can be, and right


def test_chances_that_are_true_are_well_calibrated() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 2, 4000)
    won = rng.random(4000) < 1 / (1 + np.exp(-margins))
    rows = [ranking((0, 1) if w else (1, 0), (3, 3)) for w in won]
    scores = [[float(m), 0.0] for m in margins]
    assert calibration(rows, scores)["error"] < 0.025
    assert calibration(rows, [[3 * s for s in some] for some in scores])["error"] > 0.1  # too sure of itself


def test_the_interval_of_single_pairs_is_wilsons() -> None:
    assert interval([1, 0, 1, 1], [1, 1, 1, 1]) == wilson(3, 4)


def test_pairs_that_are_right_together_count_as_few() -> None:
    """Ten prompts of ten pairs, all right or all wrong, say no more than ten pairs, less one degree of freedom."""
    low, high = interval([10] * 7 + [0] * 3, [10] * 10)
    assert (low, high) == pytest.approx(wilson(0.7 * 9, 9))


def test_the_interval_holds_what_it_promises() -> None:
    """1,000 draws of 60 prompts with 6 pairs each whose chances differ from prompt to prompt."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(1000):
        right = rng.binomial(6, rng.beta(3, 1, 60))
        low, high = interval(right.tolist(), [6] * 60)
        held += low <= 0.75 <= high
    assert 0.92 <= held / 1000 <= 0.98


def test_rewards_have_mean_zero_and_unit_deviation() -> None:
    raw = np.random.default_rng(0).normal(3, 5, 40)
    gain, bias = gain_and_bias([raw[:15].tolist(), raw[15:].tolist()])
    rewards = gain * raw + bias
    assert gain > 0 and rewards.mean() == pytest.approx(0) and rewards.std() == pytest.approx(1)
    assert gain_and_bias([[2.0, 2.0]]) == (1.0, -2.0)  # nothing to scale by
