"""How loss falls with parameters and tokens: L(N, D) = E + A / N^alpha + B / D^beta, fitted to the runs of a sweep.

The form and the way to fit it are Hoffmann et al.'s third approach ("Chinchilla", arXiv 2203.15556): the Huber loss of
log L with delta 0.001, summed (the published fit averaged it and so stopped too early: Besiroglu et al., arXiv
2404.10102), from a grid of starting points, since the surface has several valleys. Pure NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TINY = 1e-300  # in place of 0
FLOPS = 6.0
"""Floating-point operations a parameter and token of training (Kaplan et al., arXiv 2001.08361)."""
FEWEST = 6
"""One run more than the law has coefficients."""
_DELTA = 1e-3
_ROUNDS = 400
_RESTARTS = 4  # valleys that each resample is tried from


@dataclass(frozen=True)
class Run:
    """One training run: `n` parameters, `d` tokens, and the loss it ended with."""

    name: str
    n: float
    d: float
    loss: float
    table: bool = False
    """It stands in somebody else's table, so what its loss is measured in is not known here."""


@dataclass(frozen=True)
class Law:
    """The five coefficients. `E` is what no model gets below; the others say what size and data are short of."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n: float, d: float) -> float:
        """The loss of `n` parameters trained on `d` tokens."""
        return self.E + self.A / n**self.alpha + self.B / d**self.beta

    def best(self, flops: float) -> tuple[float, float]:
        """(N, D) with the lowest loss among those with 6 N D = `flops`, where both terms fall equally fast."""
        total = self.alpha + self.beta
        # In logarithms, and away from 0: few or strange runs give laws in which a term has vanished.
        a, b = (max(x, _TINY) for x in (self.alpha * self.A, self.beta * self.B))
        power = (math.log(a) - math.log(b) + self.beta * math.log(flops / FLOPS)) / max(total, _TINY)
        n = math.exp(min(max(power, -100.0), 100.0))
        return n, flops / FLOPS / n

    @property
    def data_exponent(self) -> float:
        """With which power of the budget the best size grows."""
        return self.beta / max(self.alpha + self.beta, _TINY)

    def coefficients(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def fit(runs: Sequence[Run]) -> Law:
    """The law that fits `runs` best."""
    problem = _Problem(runs)
    return problem.law(problem.solve(problem.starts(), np.ones(len(runs)))[0])


def bootstrap(runs: Sequence[Run], times: int, seed: int) -> list[Law]:
    """The laws of `times` resamples of the runs. A resample too small to settle five coefficients is drawn again."""
    problem = _Problem(runs)
    rng = np.random.default_rng(seed)
    counts = np.zeros((times, len(runs)))
    for t in range(times):
        while not _settles(runs, counts[t]):
            counts[t] = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)))
    valleys = problem.solve(problem.starts(), np.ones(len(runs)))[:_RESTARTS]
    k = len(valleys)
    found, cost = _descend(problem, np.tile(valleys, (times, 1)), np.repeat(counts, k, axis=0))
    chosen = cost.reshape(times, k).argmin(1) + k * np.arange(times)
    return [problem.law(found[i]) for i in chosen]


def spread(runs: Sequence[Run], law: Law) -> Array:
    """(runs,): how far each run lies from the law, in logs, widened for the five coefficients fitted to them."""
    residuals = np.array([math.log(r.loss / law.loss(r.n, r.d)) for r in runs])
    return residuals * math.sqrt(len(runs) / max(1, len(runs) - 5))


def predicted(laws: Sequence[Law], rest: Array, n: float, d: float, seed: int) -> tuple[float, float]:
    """The 95 % interval of one new run's loss: the doubt about the law, and the scatter of runs about it."""
    rng = np.random.default_rng(seed)
    scatter = np.exp(rng.choice(rest, (len(laws), 8)))
    losses = np.array([law.loss(n, d) for law in laws])[:, None] * scatter
    low, high = np.percentile(losses, [2.5, 97.5])
    return float(low), float(high)


def varied(runs: Sequence[Run]) -> bool:
    """Whether the runs can settle the law: enough of them, of three sizes and on three amounts of data at least."""
    return len(runs) >= FEWEST and len({r.n for r in runs}) >= 3 and len({r.d for r in runs}) >= 3


def _settles(runs: Sequence[Run], counts: Array) -> bool:
    there = [r for r, c in zip(runs, counts, strict=True) if c]
    return len(there) >= 5 and len({r.n for r in there}) >= 3 and len({r.d for r in there}) >= 3


class _Problem:
    """The sum to minimise, over many starting points at once.

    A point is (log E, log of the N term and of the D term at the middle of the runs, log alpha, log beta): taking the
    terms at the middle keeps A and alpha, B and beta from being one direction, and logs keep them positive.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        n, d = (np.log([getattr(r, k) for r in runs]) for k in ("n", "d"))
        self.loss = np.log([r.loss for r in runs])
        self.middle = float(n.mean()), float(d.mean())
        self.n, self.d = n - self.middle[0], d - self.middle[1]

    def starts(self) -> Array:
        """(S, 5): exponents, and how the loss may be shared out among E and the two terms."""
        low, mean = float(np.exp(self.loss.min())), float(np.exp(self.loss.mean()))
        grid = []
        for alpha, beta, floor, share in product(
            (0.1, 0.3, 0.5, 0.8, 1.3), (0.1, 0.3, 0.5, 0.8, 1.3), (0.2, 0.5, 0.8, 0.97), (0.15, 0.5, 0.85)
        ):
            rest = mean - floor * low
            grid.append([math.log(v) for v in (floor * low, share * rest, (1 - share) * rest, alpha, beta)])
        return np.array(grid)

    def solve(self, starts: Array, weights: Array) -> Array:
        """The points that the descent from `starts` ends at, the best first. Only the better starts are followed."""
        many = np.broadcast_to(weights, (len(starts), len(weights)))
        best = np.argsort(self.cost(starts, many)[0])[:60]
        found, cost = _descend(self, starts[best], many[best])
        return found[np.argsort(cost)]

    def cost(self, x: Array, weights: Array) -> tuple[Array, Array]:
        """(S,) and (S, 5): the Huber loss in units of delta squared, and its gradient. `weights` is (S, runs)."""
        alpha, beta = np.exp(x[:, 3:4]), np.exp(x[:, 4:5])
        terms = np.stack(
            [
                np.broadcast_to(x[:, 0:1], (len(x), len(self.n))),
                x[:, 1:2] - alpha * self.n,
                x[:, 2:3] - beta * self.d,
            ]
        )
        top = terms.max(0)
        parts = np.exp(terms - top)
        total = parts.sum(0)
        parts /= total
        r = (top + np.log(total) - self.loss) / _DELTA
        size = np.abs(r)
        value = (weights * np.where(size <= 1, 0.5 * r * r, size - 0.5)).sum(1)
        pull = weights * np.clip(r, -1, 1) / _DELTA
        slopes = [parts[0], parts[1], parts[2], -parts[1] * alpha * self.n, -parts[2] * beta * self.d]
        return value, np.stack([(pull * s).sum(1) for s in slopes], 1)

    def law(self, x: Array) -> Law:
        """The coefficients at a point."""
        alpha, beta = math.exp(x[3]), math.exp(x[4])
        a, b = math.exp(x[1] + alpha * self.middle[0]), math.exp(x[2] + beta * self.middle[1])
        return Law(math.exp(x[0]), a, b, alpha, beta)


def _descend(problem: _Problem, x: Array, weights: Array) -> tuple[Array, Array]:
    """BFGS from every row of `x` at once, with halved steps: (S, 5) and (S,).

    L-BFGS is BFGS with a short memory; for five coefficients the whole matrix is smaller than that memory.
    """
    x = x.copy()
    eye = np.eye(x.shape[1])
    value, slope = problem.cost(x, weights)
    inverse = eye / np.maximum(np.linalg.norm(slope, axis=1), 1e-12)[:, None, None]
    live = np.arange(len(x))
    stuck = np.zeros(len(x), np.int64)
    for _ in range(_ROUNDS):
        step = -np.einsum("sij,sj->si", inverse[live], slope[live])
        step *= np.minimum(1, 2 / np.maximum(np.abs(step).max(1), 1e-30))[:, None]  # e^2 a step is far enough
        new, new_value, new_slope = _halved(problem, x[live], value[live], slope[live], step, weights[live])
        moved, turned = new - x[live], new_slope - slope[live]
        inverse[live] = _updated(inverse[live], moved, turned, eye)
        stuck[live] = np.where(value[live] - new_value < 1e-10 * np.maximum(1, value[live]), stuck[live] + 1, 0)
        x[live], value[live], slope[live] = new, new_value, new_slope
        # The first time without progress the matrix is forgotten: Huber's corners spoil it.
        again = live[stuck[live] == 1]
        inverse[again] = eye / np.maximum(np.linalg.norm(slope[again], axis=1), 1e-12)[:, None, None]
        live = live[stuck[live] < 3]
        if not len(live):
            break
    return x, value


def _halved(
    problem: _Problem, x: Array, value: Array, slope: Array, step: Array, weights: Array
) -> tuple[Array, Array, Array]:
    """The first of x + step, x + step/2, ... that goes down enough; x itself where none does."""
    gain = 1e-4 * (slope * step).sum(1)
    best, best_value, best_slope = x.copy(), value.copy(), slope.copy()
    left, size = np.arange(len(x)), 1.0
    for _ in range(30):
        tried = x[left] + size * step[left]
        v, s = problem.cost(tried, weights[left])
        good = np.isfinite(v) & (v <= value[left] + size * gain[left]) & (v < value[left])
        at = left[good]
        best[at], best_value[at], best_slope[at] = tried[good], v[good], s[good]
        left, size = left[~good], size / 2
        if not len(left):
            break
    return best, best_value, best_slope


def _updated(inverse: Array, moved: Array, turned: Array, eye: Array) -> Array:
    """BFGS's update of the inverse curvature, left out where the slope did not turn with the step."""
    along = (moved * turned).sum(1)
    good = along > 1e-12 * np.linalg.norm(moved, axis=1) * np.linalg.norm(turned, axis=1)
    good &= along > 0
    rho = np.where(good, 1 / np.where(good, along, 1), 0)[:, None, None]
    left = eye - rho * moved[:, :, None] * turned[:, None, :]
    found = left @ inverse @ left.transpose(0, 2, 1) + rho * moved[:, :, None] * moved[:, None, :]
    return np.where(good[:, None, None], found, inverse)
