"""Bradley-Terry ratings by maximum likelihood, with what else decides a game: who was shown first, and who wrote more.

The chance that A beats B is the logistic of their difference in strength. Two terms may stand beside it: `position`,
the head start of the answer that is shown first, and `length`, what writing more is worth to this judge. The second is
AlpacaEval 2's length control (arXiv 2404.04475): a term in tanh of the difference in length over its standard
deviation, left out when the ratings are read off. Pure functions of games; no model is needed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Elo's scale: 400 points are odds of ten to one. 1000 is the mean of those that play.
ELO = 400 / math.log(10)
_MEAN = 1000.0
# Only so that a term no game speaks about stays at 0; it moves a fitted one by less than a millionth.
_RIDGE = 1e-6


@dataclass(frozen=True)
class Game:
    """Two answers to one prompt. `score` is 1 where the first one shown won, 0 where it lost, a half for a draw."""

    prompt: str
    first: str
    second: str
    score: float
    longer: float = 0.0
    """How many characters the first answer is longer than the second."""


@dataclass(frozen=True)
class Fit:
    """Strengths in nats (their mean is 0), in the order of the players, and the two other terms."""

    players: tuple[str, ...]
    strengths: Vector
    position: float = 0.0
    length: float = 0.0
    length_scale: float = 1.0
    drawn: float = 0.0
    """The virtual draws that kept the strengths finite; 0 where there is a maximum without them."""

    def ratings(self) -> dict[str, float]:
        """Strengths on Elo's scale with mean 1000."""
        return {p: _MEAN + ELO * float(s) for p, s in zip(self.players, self.strengths, strict=True)}

    def chance(self, first: str, second: str) -> float:
        """How likely `first` beats `second`, neither being shown first nor writing more."""
        at = {p: float(s) for p, s in zip(self.players, self.strengths, strict=True)}
        return 1 / (1 + math.exp(at[second] - at[first]))


def bradley_terry(
    players: Sequence[str],
    games: Sequence[Game],
    weights: Sequence[float] | Vector | None = None,
    *,
    position: bool = False,
    length: bool = False,
) -> Fit:
    """The strengths that make the games likeliest; `weights` (one a game) count some more than others.

    Strengths have a maximum only if no group of players won all its games against the others (Ford 1957). Where one
    did, every player is given one drawn game against a player of mean strength, and `drawn` says so.
    """
    table = _Table(players, games, position, length)
    w = np.ones(len(games)) if weights is None else np.asarray(weights, np.float64)
    return table.fit(w)


class _Table:
    """The games as rows of a logistic regression, made once and fitted with many weightings."""

    def __init__(self, players: Sequence[str], games: Sequence[Game], position: bool, length: bool) -> None:
        self.players = tuple(players)
        at = {p: i for i, p in enumerate(self.players)}
        self.first = np.array([at[g.first] for g in games], np.int64)
        self.second = np.array([at[g.second] for g in games], np.int64)
        self.score = np.array([g.score for g in games], np.float64)
        longer = np.array([g.longer for g in games], np.float64)
        # The sign of a difference depends on who is named first, so its spread is taken about 0.
        self.scale = float(np.sqrt((longer**2).mean())) if len(games) and longer.any() else 1.0
        self.position, self.length = position, length and bool(longer.any())
        rows, k = np.arange(len(games)), len(self.players)
        self.x = np.zeros((len(games), k + 2))
        self.x[rows, self.first] = 1
        self.x[rows, self.second] = -1
        self.x[:, k] = float(position)
        self.x[:, k + 1] = np.tanh(longer / self.scale) if self.length else 0

    def fit(self, weights: Vector) -> Fit:
        k = len(self.players)
        drawn = 0.0 if self._connected(weights) else 1.0
        x, y, w = self.x, self.score, weights
        if drawn:
            x = np.vstack([x, np.eye(k, k + 2)])
            y, w = np.append(y, np.full(k, 0.5)), np.append(w, np.full(k, drawn))
        found = _logistic(x, y, w, k)
        return Fit(self.players, found[:k], float(found[k]), float(found[k + 1]), self.scale, drawn)

    def _connected(self, weights: Vector) -> bool:
        """Whether everybody can be reached from everybody by wins (a draw is half a win for both)."""
        k = len(self.players)
        won = np.eye(k, dtype=bool)
        played = weights > 0
        won[self.first[played & (self.score > 0)], self.second[played & (self.score > 0)]] = True
        won[self.second[played & (self.score < 1)], self.first[played & (self.score < 1)]] = True
        for _ in range(max(1, k.bit_length())):
            won = (won.astype(np.int64) @ won.astype(np.int64)) > 0
        return bool(won.all())


def _logistic(x: Vector, y: Vector, w: Vector, players: int) -> Vector:
    """Weighted logistic regression by Newton's method with halved steps; the players' coefficients have mean 0."""
    n = x.shape[1]
    ridge = np.zeros((n, n))
    ridge[:players, :players] = 1 / players  # holds the mean, which the games say nothing about, at 0
    ridge[np.arange(players, n), np.arange(players, n)] = _RIDGE
    at = np.zeros(n)

    def cost(v: Vector) -> float:
        z = x @ v
        return float(w @ (np.logaddexp(0, z) - y * z) + 0.5 * v @ ridge @ v)

    now = cost(at)
    for _ in range(100):
        p = 1 / (1 + np.exp(-(x @ at)))
        slope = x.T @ (w * (p - y)) + ridge @ at
        curve = (x * (w * p * (1 - p))[:, None]).T @ x + ridge
        step = np.linalg.lstsq(curve, slope, rcond=None)[0]
        size = 1.0
        while (new := cost(at - size * step)) > now + 1e-12 and size > 1e-6:
            size /= 2
        at, now = at - size * step, new
        if float(np.abs(size * step).max()) < 1e-9:
            break
    at[:players] -= at[:players].mean()
    return at


def bootstrap(
    players: Sequence[str],
    games: Sequence[Game],
    times: int,
    seed: int,
    *,
    position: bool = False,
    length: bool = False,
) -> Vector:
    """(times, players + 2): strengths, position and length of resampled games, whole prompts at a time.

    The games on one prompt stand and fall together (both orders judge the same two answers), so resampling single games
    would make the intervals too narrow.
    """
    table = _Table(players, games, position, length)
    prompts = {p: i for i, p in enumerate(dict.fromkeys(g.prompt for g in games))}
    of = np.array([prompts[g.prompt] for g in games], np.int64)
    rng = np.random.default_rng(seed)
    found = np.zeros((times, len(players) + 2))
    for t in range(times):
        counts = rng.multinomial(len(prompts), np.full(len(prompts), 1 / len(prompts))).astype(np.float64)
        fit = table.fit(counts[of])
        found[t] = [*fit.strengths, fit.position, fit.length]
    return found


def interval(samples: Vector) -> tuple[float, float]:
    """The middle 95 % of the bootstrap's values."""
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)


def points(players: Sequence[str], games: Sequence[Game]) -> list[list[float | None]]:
    """Row against column: the share of the points that the row's player took; None where they did not meet."""
    at = {p: i for i, p in enumerate(players)}
    won = np.zeros((len(at), len(at)))
    met = np.zeros((len(at), len(at)))
    for g in games:
        i, j = at[g.first], at[g.second]
        won[i, j] += g.score
        won[j, i] += 1 - g.score
        met[i, j] += 1
        met[j, i] += 1
    return [[float(w / m) if m else None for w, m in zip(*rows, strict=True)] for rows in zip(won, met, strict=True)]


@dataclass(frozen=True)
class PositionBias:
    """What became of the pairs that were judged in both orders."""

    pairs: int
    consistent: int
    """The same answer won (or it was a draw) in both orders."""
    first: int
    """The answer that was shown first fared better in both."""
    second: int
    """The one shown second did."""


def position_bias(games: Sequence[Game]) -> PositionBias:
    """Count them. A judge without a bias is consistent or, where it is not, for the first as often as the second."""
    seen = {(g.prompt, g.first, g.second): g.score for g in games}
    pairs = consistent = first = second = 0
    for (prompt, a, b), score in seen.items():
        other = seen.get((prompt, b, a))
        if other is None or a > b:
            continue
        pairs += 1
        # Both scores are of the answer shown first: without a bias they add up to one.
        consistent += score + other == 1
        first += score + other > 1
        second += score + other < 1
    return PositionBias(pairs, consistent, first, second)
