"""How sure one can be of a figure that is no plain share: the bootstrap over items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import numpy as np

_DRAWS = 1000


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of `values`: the sample's standard deviation over the root of their number. None for fewer than 2."""
    if len(values) < 2:
        return None
    return float(np.std(np.asarray(values, float), ddof=1) / sqrt(len(values)))


def bootstrap(
    values: Sequence[Any], figure: Callable[[np.ndarray], np.ndarray], seed: int, draws: int = _DRAWS
) -> tuple[float | None, float | None, float | None]:
    """(standard error, 2.5 %, 97.5 %) of a figure over items drawn anew with replacement; Nones for fewer than 2 items.

    `figure` takes (draws, items) or (draws, items, columns) and gives (draws,).
    """
    table = np.asarray(values, float)
    if len(table) < 2:
        return None, None, None
    rng = np.random.default_rng(seed)
    # In blocks: a large task's items times the draws would not fit into memory.
    size = max(1, 4_000_000 // len(table))
    found = np.concatenate(
        [
            figure(table[rng.integers(0, len(table), (min(size, draws - at), len(table)))])
            for at in range(0, draws, size)
        ]
    )
    low, high = np.quantile(found, [0.025, 0.975])
    return float(found.std(ddof=1)), float(low), float(high)
