"""How sure one can be of a share, and of the difference of two: exact formulas, nothing sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson(correct: float, n: float, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of `correct` out of `n`, as shares; (0, 1) where nothing was asked.

    Unlike the textbook interval (p plus or minus two standard errors) it is not empty at 0 and 1, where small models
    live, and its coverage is close to 95 % from ten items on (Brown, Cai and DasGupta 2001).
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = correct / n, z * z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # Exact at the ends, where rounding would leave the share itself outside.
    return middle - half if correct else 0.0, middle + half if correct < n else 1.0


@dataclass(frozen=True)
class Paired:
    """Two models on the same items: how many only the first and only the second got right, and what follows."""

    n: int
    only_first: int
    only_second: int
    difference: float
    """Second minus first, as a share of the items."""
    low: float
    high: float
    p: float
    """How likely a split at least this uneven is if the two are equally good (McNemar's exact test, two-sided)."""


def paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare two models item by item. The items both get right or both get wrong say nothing about which is better."""
    assert len(first) == len(second), "not the same items"
    b = sum(x and not y for x, y in zip(first, second, strict=True))
    c = sum(y and not x for x, y in zip(first, second, strict=True))
    low, high = difference_interval(b, c, len(first))
    return Paired(len(first), b, c, (c - b) / len(first) if first else 0.0, low, high, mcnemar(b, c))


def mcnemar(b: int, c: int) -> float:
    """The exact two-sided p-value of `b` against `c` discordant items: a fair coin thrown b + c times."""
    n = b + c
    tail = sum(comb(n, i) for i in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2**n)


def difference_interval(b: int, c: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The 95 % interval of (c - b) / n for paired items, with half an item added to each cell.

    Agresti and Min (2005) show that this keeps its coverage where the plain interval, which has no width at b = c = 0,
    does not.
    """
    b2, c2, n2 = b + 0.5, c + 0.5, n + 2
    middle = (c2 - b2) / n2
    half = z * sqrt(max(0.0, (b2 + c2) - (c2 - b2) ** 2 / n2)) / n2
    return max(-1.0, middle - half), min(1.0, middle + half)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that one of `k` tries is right, estimated without bias from `correct` of `n` tries.

    1 - C(n - correct, k) / C(n, k), as in the HumanEval paper (arXiv 2107.03374, section 2.1). The plain
    1 - (1 - correct / n)^k is too low.
    """
    assert 0 <= correct <= n and 1 <= k <= n, (n, correct, k)
    return 1.0 - comb(n - correct, k) / comb(n, k)
