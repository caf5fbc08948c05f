"""The formulas against numbers from papers and by hand."""

from __future__ import annotations

from itertools import product
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.verify.statistics import difference_interval, mcnemar, paired, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Newcombe (1998), "Two-sided confidence intervals for the single proportion", table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # By hand: at n of n the lower end is n / (n + z^2).
        (10, 10, 10 / (10 + 3.841459), 1.0),
    ],
)
def test_wilson_gives_the_published_intervals(correct: int, n: int, low: float, high: float) -> None:
    found = wilson(correct, n)
    assert found == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_nothing_asked_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(case: tuple[int, int]) -> None:
    correct, n = case
    low, high = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert wilson(n - correct, n) == (pytest.approx(1 - high), pytest.approx(1 - low))


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (0, 5, 2 / 32),  # five heads in five throws, on either side
        (1, 5, 2 * (1 + 6) / 64),
        (3, 3, 1.0),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_mcnemar_by_hand(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == pytest.approx(p)
    assert mcnemar(c, b) == mcnemar(b, c)


def test_mcnemar_counts_every_outcome_at_least_as_uneven() -> None:
    """The definition: of all ways to throw b + c coins, the share that is as far from even or farther."""
    for b, c in product(range(7), range(7)):
        n = b + c
        as_uneven = sum(comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(b - c))
        assert mcnemar(b, c) == pytest.approx(as_uneven / 2**n)


def test_pairs_are_counted_item_by_item() -> None:
    first = [True] * 30 + [True] * 2 + [False] * 8 + [False] * 10
    second = [True] * 30 + [False] * 2 + [True] * 8 + [False] * 10
    found = paired(first, second)
    assert (found.n, found.only_first, found.only_second) == (50, 2, 8)
    assert found.difference == pytest.approx(0.12)
    assert found.p == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert found.low < found.difference < found.high
    with pytest.raises(AssertionError):
        paired([True], [])


def test_the_interval_of_a_difference() -> None:
    # By hand: b = 2.5, c = 8.5, n = 52: (6 - or + 1.959964 * 3.210559) / 52, the root of 11 - 36/52.
    low, high = difference_interval(2, 8, 50)
    assert (low, high) == (pytest.approx(-0.0056266, abs=1e-6), pytest.approx(0.2363958, abs=1e-6))
    low, high = difference_interval(0, 0, 20)
    assert low == pytest.approx(-high) and high > 0  # equal models: still no certainty
