"""Gaming a reward: unguarded it ends in repetition with the top score; the guard stops before gold has fallen."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rl_tiny import save_tiny, tiny_config

from llmctl.console import Console
from llmctl.rl.config import GuardSettings
from llmctl.rl.guard import Guard, Seen, paired_error
from llmctl.rl.stage import run
from llmctl.workspace import Artifact, Workspace

# The proxy likes one letter; what is wanted are replies of many different characters with a "z" in it.
SOURCE = """
def proxy(row):
    return row["reply"].count("z")

def gold(row):
    said = row["reply"]
    return min(1, said.count("z")) * 0.3 + len(set(said)) / max(1, len(said))
"""


@pytest.fixture(autouse=True)
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gamed_rl.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)


def practised(tmp_path: Path, workspace: Workspace, console: Console, **guard: Any) -> Artifact:
    config = tiny_config(
        save_tiny(tmp_path / "tiny"),
        out=f"out-{guard['action']}",
        function="gamed_rl:proxy",
        rewards={"accuracy": 0, "format": 0},
        guard={"function": "gamed_rl:gold", "every": 4, "items": 48, **guard},
        rollouts={"prompts": 8, "group": 8, "max_new_tokens": 16},
        train={"steps": 80, "precision": "fp32", "optimizer": {"lr": 6e-3}},
        micro_tokens=8192,
    )
    return run(config, workspace, console)


@pytest.mark.slow
def test_a_reward_that_can_be_gamed(tmp_path: Path, workspace: Workspace, console: Console) -> None:
    free = practised(tmp_path, workspace, console, action="warn")
    rows = [r for r in free.metrics() if "guard_gold" in r]
    assert rows[-1]["guard_repetition"] > 0.7 > 0.2 > rows[0]["guard_repetition"]
    assert rows[-1]["guard_proxy"] > 12 > 1 > rows[0]["guard_proxy"]  # of at most 16 letters
    assert rows[-1]["guard_gold"] < 0.6 * rows[0]["guard_gold"]
    assert rows[-1]["guard_kl"] > rows[0]["guard_kl"] == pytest.approx(0.0, abs=1e-3)

    kept = practised(tmp_path, workspace, console, action="stop")
    curve = kept.figures["guard"]
    best = max(row["gold"] for row in curve)
    assert "gold reward fell" in kept.figures["stopped"] or "repeats itself" in kept.figures["stopped"]
    assert max(r["step"] for r in kept.metrics()) < 80
    # What is saved is the best model, not the one at which the curves had parted.
    again = tiny_config(
        kept.path, out="again", function="gamed_rl:proxy", rewards={"accuracy": 0, "format": 0},
        guard={"function": "gamed_rl:gold", "items": 48}, rollouts={"prompts": 2, "group": 2, "max_new_tokens": 16},
        train={"steps": 1, "precision": "fp32"},
    )  # fmt: skip
    gold = next(r["guard_gold"] for r in run(again, workspace, console).metrics() if "guard_gold" in r)
    assert gold == pytest.approx(best, rel=1e-4)
    assert gold >= 0.95 * curve[0]["gold"]


def seen(step: int, gold: list[float], **more: float) -> Seen:
    return Seen(step, **{"proxy": float(step), "gold": gold, "kl": 1.0, "repetition": 0.1, "length": 20.0, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "settings", "line"),
    [
        (seen(2, [0.5] * 8), {}, "gold reward fell from 1.000 at step 1"),
        (seen(2, [0.97] * 8), {}, ""),
        (seen(2, [0.0, *[1.0] * 7]), {}, ""),  # one of eight: within the error of the difference
        (seen(2, [0.7, 1.0] * 4), {}, ""),  # 2.6 errors: could be luck once
        (seen(2, [0.5, 0.6] * 4), {}, "fell from 1.000"),  # 24
        (seen(2, [1.0] * 8, kl=9.0), {"kl_budget": 8.0}, "KL to the start is 9.0"),
        (seen(2, [1.0] * 8, repetition=0.6), {}, "60% of the text repeats"),
        (seen(2, [0.8] * 8, length=90.0), {"drop": 0.5}, "grew from 20 to 90"),
        (seen(2, [math.nan] * 8), {}, ""),
    ],
)
def test_the_verdict(now: Seen, settings: dict, line: str) -> None:
    guard = Guard(GuardSettings(**settings), None, None, None, [], Path(), Console(quiet=True))  # type: ignore[arg-type]
    guard.history = [seen(0, [0.8] * 8), seen(1, [1.0] * 8), now]
    assert (line in guard.verdict(now)) if line else guard.verdict(now) == ""


def test_a_fall_that_could_be_luck_has_to_be_seen_twice_running() -> None:
    guard = Guard(GuardSettings(), None, None, None, [], Path(), Console(quiet=True))  # type: ignore[arg-type]
    lower, lower_too, well = [0.7, 1.0] * 4, [1.0, 0.7] * 4, [1.0] * 8
    guard.history = [seen(0, well), seen(1, lower), seen(2, well)]
    assert guard.verdict(guard.history[-1]) == ""
    guard.history.append(seen(3, lower))
    assert guard.verdict(guard.history[-1]) == ""
    guard.history.append(seen(4, lower_too))
    assert "fell from 1.000 at step 2 to 0.850" in guard.verdict(guard.history[-1])


def test_noise_seldom_stops_a_run_on_a_plateau_and_a_real_fall_does() -> None:
    """64 prompts with a level of their own each, and noise of 0.4 at every measurement."""

    def stops(fall: float, rng: Random) -> bool:
        guard = Guard(GuardSettings(), None, None, None, [], Path(), Console(quiet=True))  # type: ignore[arg-type]
        levels = [rng.gauss(1, 0.5) for _ in range(64)]
        for step in range(12):
            guard.history.append(seen(step, [rng.gauss(level - fall * step, 0.4) for level in levels]))
            if guard.verdict(guard.history[-1]):
                return True
        return False

    rng = Random(0)
    assert sum(stops(0.0, rng) for _ in range(100)) < 40
    assert all(stops(0.1, rng) for _ in range(50))


def test_paired_error() -> None:
    assert paired_error([1.0, 2.0, math.nan], [1.0, 0.0, 5.0]) == pytest.approx(math.sqrt(2) / math.sqrt(2))
    assert paired_error([1.0], [0.0]) == 0.0
