"""How sure one can be of a figure that is no plain share: the bootstrap over items, and items exchanged at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import numpy as np

Figure = Callable[[np.ndarray], np.ndarray]
"""From (draws, items) or (draws, items, columns) to (draws,)."""

_DRAWS = 1000
_EXCHANGES = 9999  # p-values down to 0.0001


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean of `values`: the sample's standard deviation over the root of their number. None for fewer than 2."""
    if len(values) < 2:
        return None
    return float(np.std(np.asarray(values, float), ddof=1) / sqrt(len(values)))


def bootstrap(
    values: Sequence[Any], figure: Figure, seed: int, draws: int = _DRAWS
) -> tuple[float | None, float | None, float | None]:
    """(standard error, 2.5 %, 97.5 %) of a figure over items drawn anew with replacement; Nones for fewer than 2."""
    table = np.asarray(values, float)
    if len(table) < 2:
        return None, None, None
    rng = np.random.default_rng(seed)
    found = _in_blocks(draws, len(table), lambda n: figure(table[rng.integers(0, len(table), (n, len(table)))]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(found.std(ddof=1)), float(low), float(high)


def difference(first: Sequence[Any], second: Sequence[Any], figure: Figure, seed: int) -> dict[str, Any]:
    """Two models on the same items: `difference` (second minus first) of a figure, its 95 % interval `low` to `high`
    by the bootstrap over the items, and `p`.

    p is how often the difference is as large when every item's two values are exchanged by a coin: if the models were
    equally good, it would not matter who said which (the paired randomization test). All None for fewer than 2 items.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    assert a.shape == b.shape, "not the same items"
    seen = float(figure(b[None])[0] - figure(a[None])[0]) if len(a) else 0.0
    if len(a) < 2:
        return {"n": len(a), "difference": seen, "low": None, "high": None, "p": None}
    rng = np.random.default_rng(seed)

    def resampled(n: int) -> np.ndarray:
        drawn = rng.integers(0, len(a), (n, len(a)))
        return figure(b[drawn]) - figure(a[drawn])

    def exchanged(n: int) -> np.ndarray:
        coin = rng.integers(0, 2, (n, len(a)), dtype=np.int8).astype(bool).reshape(n, len(a), *[1] * (a.ndim - 1))
        return figure(np.where(coin, a, b)) - figure(np.where(coin, b, a))

    low, high = np.quantile(_in_blocks(_DRAWS, a.size, resampled), [0.025, 0.975])
    chance = np.abs(_in_blocks(_EXCHANGES, a.size, exchanged)) >= abs(seen) * (1 - 1e-9)  # ties in spite of rounding
    p = float(1 + chance.sum()) / (1 + _EXCHANGES)
    return {"n": len(a), "difference": seen, "low": float(low), "high": float(high), "p": p}


def _in_blocks(draws: int, size: int, make: Callable[[int], np.ndarray]) -> np.ndarray:
    """`draws` figures made block by block: a large task's items times the draws would not fit into memory."""
    block = max(1, 4_000_000 // size)
    return np.concatenate([make(min(block, draws - at)) for at in range(0, draws, block)])
