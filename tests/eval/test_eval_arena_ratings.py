"""Ratings: against published tables, against another way to fit, and by hand."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from llmctl.eval.ratings import ELO, Game, PositionBias, bootstrap, bradley_terry, interval, points, position_bias

# Baseball, American League East 1987 (Agresti, Categorical Data Analysis; the worked example of R's BradleyTerry2):
# home team, away team, home wins, away wins.
_SEASON = """
Mil Det 4 3|Mil Tor 4 2|Mil NY 4 3|Mil Bos 6 1|Mil Cle 4 2|Mil Bal 6 0
Det Mil 3 3|Det Tor 4 2|Det NY 4 3|Det Bos 6 0|Det Cle 6 1|Det Bal 4 3
Tor Mil 2 5|Tor Det 4 3|Tor NY 2 4|Tor Bos 4 3|Tor Cle 4 2|Tor Bal 6 0
NY Mil 3 3|NY Det 5 1|NY Tor 2 5|NY Bos 4 3|NY Cle 4 2|NY Bal 6 1
Bos Mil 5 1|Bos Det 2 5|Bos Tor 3 3|Bos NY 4 2|Bos Cle 5 2|Bos Bal 6 0
Cle Mil 2 5|Cle Det 3 3|Cle Tor 3 4|Cle NY 4 3|Cle Bos 4 2|Cle Bal 2 4
Bal Mil 2 5|Bal Det 1 5|Bal Tor 1 6|Bal NY 2 4|Bal Bos 1 6|Bal Cle 3 4
"""
_TEAMS = ("Bal", "Bos", "Cle", "Det", "Mil", "NY", "Tor")


def season() -> list[Game]:
    rows = [r.split() for r in _SEASON.replace("\n", "|").split("|") if r]
    return [
        Game(f"{home}-{away}-{i}", home, away, float(i < int(won)))
        for home, away, won, lost in rows
        for i in range(int(won) + int(lost))
    ]


@pytest.mark.parametrize(
    ("home", "published", "advantage"),
    [
        (False, {"Bos": 1.1077, "Cle": 0.6839, "Det": 1.4364, "Mil": 1.5814, "NY": 1.2476, "Tor": 1.2945}, 0.0),
        (True, {"Bos": 1.1438, "Cle": 0.7047, "Det": 1.4754, "Mil": 1.6196, "NY": 1.2813, "Tor": 1.3271}, 0.3023),
    ],
)
def test_the_published_table_of_a_season(home: bool, published: dict[str, float], advantage: float) -> None:
    fit = bradley_terry(_TEAMS, season(), position=home)
    strength = dict(zip(fit.players, fit.strengths, strict=True))
    found = {team: strength[team] - strength["Bal"] for team in published}
    assert found == pytest.approx(published, abs=6e-5)
    assert fit.position == pytest.approx(advantage, abs=6e-5) and fit.drawn == 0


def zermelo(players: list[str], games: list[Game], rounds: int = 5000) -> dict[str, float]:
    """The oldest algorithm (1929): strength = points over the sum of 1 / (own + other strength)."""
    s = dict.fromkeys(players, 1.0)
    for _ in range(rounds):
        new = {}
        for p in players:
            mine = [g for g in games if p in (g.first, g.second)]
            won = sum(g.score if g.first == p else 1 - g.score for g in mine)
            new[p] = won / sum(1 / (s[g.first] + s[g.second]) for g in mine)
        mean = math.exp(sum(math.log(v) for v in new.values()) / len(new))
        s = {p: v / mean for p, v in new.items()}
    return {p: math.log(v) for p, v in s.items()}


@pytest.mark.parametrize("seed", range(3))
def test_another_way_to_the_maximum_ends_at_the_same_place(seed: int) -> None:
    rng = random.Random(seed)
    players = ["a", "b", "c", "d"]
    games = [
        Game(str(i), *rng.sample(players, 2), score=rng.choice([0.0, 0.5, 1.0]))  # type: ignore[misc]
        for i in range(40)
    ]
    fit = bradley_terry(players, games)
    assert dict(zip(fit.players, fit.strengths, strict=True)) == pytest.approx(zermelo(players, games, 800), abs=1e-5)


def test_two_players_by_hand() -> None:
    """Three of four games won are odds of 3: 400 log10(3) points."""
    fit = bradley_terry(["a", "b"], [Game(str(i), "a", "b", float(i > 0)) for i in range(4)])
    rating = fit.ratings()
    assert rating["a"] - rating["b"] == pytest.approx(400 * math.log10(3), abs=1e-6)
    assert fit.chance("a", "b") == pytest.approx(0.75) and sum(rating.values()) == pytest.approx(2000)


def test_who_won_everything_stays_finite_and_it_is_said() -> None:
    fit = bradley_terry(["a", "b"], [Game(str(i), "a", "b", 1.0) for i in range(10)])
    assert fit.drawn == 1 and 0 < fit.strengths[0] < 5
    more = bradley_terry(["a", "b"], [Game(str(i), "a", "b", 1.0) for i in range(100)])
    assert more.strengths[0] > fit.strengths[0]


def test_a_judge_that_only_likes_length_says_nothing_about_quality_once_length_is_controlled() -> None:
    rng = random.Random(1)
    games = []
    for i in range(600):
        longer = rng.gauss(200, 300)  # "wordy" writes more
        won = float(rng.random() < 1 / (1 + math.exp(-1.5 * math.tanh(longer / 360))))
        games.append(Game(str(i), "wordy", "terse", won, longer))
    plain = bradley_terry(["wordy", "terse"], games).ratings()
    fit = bradley_terry(["wordy", "terse"], games, length=True)
    controlled = fit.ratings()
    assert plain["wordy"] - plain["terse"] > 60
    assert abs(controlled["wordy"] - controlled["terse"]) < 45 and fit.length > 1


def test_quality_is_still_seen_where_length_varies_on_its_own() -> None:
    rng = random.Random(2)
    games = []
    for i in range(800):
        longer = rng.gauss(0, 300)
        won = float(rng.random() < 1 / (1 + math.exp(-(1.0 + math.tanh(longer / 300)))))
        games.append(Game(str(i), "good", "bad", won, longer))
    fit = bradley_terry(["good", "bad"], games, length=True)
    assert fit.strengths[0] - fit.strengths[1] == pytest.approx(1.0, abs=0.3)
    assert fit.length == pytest.approx(1.0, abs=0.35)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """60 arenas of 80 prompts between players one nat apart: close to 57 of the intervals should hold it."""
    rng = random.Random(0)
    held = 0
    for trial in range(60):
        games = [Game(str(i), "a", "b", float(rng.random() < 1 / (1 + math.exp(-1)))) for i in range(80)]
        s = bootstrap(["a", "b"], games, 120, trial)
        low, high = interval(s[:, 0] - s[:, 1])
        held += low <= 1.0 <= high
    assert 51 <= held <= 60


def test_both_orders_of_a_pair_count_once_in_the_interval() -> None:
    """The same judgement twice is not twice the evidence."""
    rng = random.Random(3)
    once = [Game(str(i), "a", "b", float(rng.random() < 0.6)) for i in range(60)]
    twice = once + [Game(g.prompt, "b", "a", 1 - g.score) for g in once]
    width = [np.ptp(interval(bootstrap(["a", "b"], games, 200, 0)[:, 0])) * ELO for games in (once, twice)]
    assert width[1] == pytest.approx(width[0], rel=0.15)


def test_points_and_position_bias_by_hand() -> None:
    games = [
        Game("1", "a", "b", 1.0), Game("1", "b", "a", 0.0),  # a wins whatever the order
        Game("2", "a", "b", 1.0), Game("2", "b", "a", 1.0),  # whoever is first
        Game("3", "a", "b", 0.0), Game("3", "b", "a", 0.5),  # rather the second
        Game("4", "a", "b", 0.5),
    ]  # fmt: skip
    assert position_bias(games) == PositionBias(pairs=3, consistent=1, first=1, second=1)
    table = points(["a", "b", "c"], games)
    assert table[0][1] == pytest.approx((1 + 1 + 1 + 0 + 0 + 0.5 + 0.5) / 7) and table[0][2] is None
    assert table[0][1] + table[1][0] == pytest.approx(1)  # type: ignore[operator]
