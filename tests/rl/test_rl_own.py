"""A reward of a person's own: what it returns, and what happens when it raises, hangs, exits or returns NaN."""

from __future__ import annotations

from pathlib import Path

import pytest
from rl_tiny import save_tiny, tiny_config

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.rl.own import OwnReward
from llmctl.rl.stage import run
from llmctl.workspace import Workspace

SOURCE = """
import os, time
print("imported, and printing to standard output")

def length(row):
    print("a word on the side")
    return len(row["reply"])

def raises(row):
    return row["nothing"]

def sometimes(row):
    return {"nan": float("nan"), "text": "high", "none": None, "raises": 1}[row["reply"]] / (row["reply"] != "raises")

def hangs(row):
    time.sleep(60 if row["reply"] == "hang" else 0)
    return True

def exits(row):
    os._exit(3)

def picky(row):
    return row["reply"].count("e") if len(row["reply"]) % 2 else float("nan")
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_rl.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)


def rows(*replies: str) -> list[dict]:
    return [{"reply": r} for r in replies]


def test_it_is_called_on_every_row_and_may_print() -> None:
    with OwnReward("mine_rl:length", 20) as reward:
        assert reward(rows("abc", "")) == [3.0, 0.0]
        assert reward(rows("é\n")) == [2.0]
        assert reward.problems == []


def test_what_is_no_number_is_left_out_and_said() -> None:
    with OwnReward("mine_rl:hangs", 20) as reward:
        assert reward(rows("x")) == [1.0]
    with OwnReward("mine_rl:sometimes", 20) as reward, pytest.raises(UserError, match="no number for any of 2"):
        reward(rows("nan", "text"))
    with OwnReward("mine_rl:picky", 20) as reward:
        assert reward(rows("e", "ee")) == [1.0, None]
        assert reward.problems == ["returned nan"]


def test_what_it_raises_is_said_with_its_place() -> None:
    with OwnReward("mine_rl:raises", 20) as reward, pytest.raises(UserError, match=r"mine_rl.py:\d+: .*raised KeyErr"):
        reward(rows("x", "y"))


def test_a_reply_on_which_it_hangs_is_left_out() -> None:
    with OwnReward("mine_rl:hangs", 20) as reward:
        reward(rows("x"))
        reward.timeout = 0.2
        assert reward(rows("hang")[:0]) == []
        found = reward(rows("x", "hang"))
        assert found == [1.0, None]
        assert reward.problems == ["took more than 0.2 s"]


def test_one_that_hangs_on_and_on_ends_the_run() -> None:
    with OwnReward("mine_rl:hangs", 0.2) as reward, pytest.raises(UserError, match="for 3 replies in a row"):
        reward(rows(*["hang"] * 9))


def test_one_that_exits_does_not_take_training_down() -> None:
    with OwnReward("mine_rl:exits", 20) as reward, pytest.raises(UserError, match="ended its process"):
        reward(rows("x"))


def test_a_function_that_is_not_there_is_named() -> None:
    with OwnReward("mine_rl:lenght", 20) as reward, pytest.raises(UserError, match="did you mean 'length'"):
        reward(rows("x"))
    with OwnReward("nowhere_rl:f", 20) as reward, pytest.raises(UserError, match=r"put nowhere_rl.py into"):
        reward(rows("x"))


def test_a_run_goes_on_without_the_replies_that_have_no_reward(
    tmp_path: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    settings = {"function": "mine_rl:picky", "rewards": {"accuracy": 0, "format": 0}, "guard": {"every": 0}}
    made = run(tiny_config(save_tiny(tmp_path / "tiny"), **settings), workspace, Console(quiet=True))
    steps = [r for r in made.metrics() if "group_std" in r]
    assert len(steps) == 4 and any(0 < r["unscored"] < 1 for r in steps)
    assert all(r["reward"] == pytest.approx(r["reward_own"], abs=1e-5) for r in steps)
    assert "mine_rl:picky returned nan" in capsys.readouterr().err


def test_a_run_that_ends_on_it_keeps_its_checkpoint(tmp_path: Path, workspace: Workspace, console: Console) -> None:
    settings = {"rewards": {"accuracy": 0, "format": 0}, "guard": {"every": 0}}
    model = save_tiny(tmp_path / "tiny")
    broken = SOURCE.replace("def picky(row):", "def picky(row):\n    COUNT")
    good = tiny_config(model, function="mine_rl:picky", **settings)
    (tmp_path / "mine_rl.py").write_text(broken)
    with pytest.raises(UserError, match="COUNT"):
        run(good, workspace, console)
    (tmp_path / "mine_rl.py").write_text(SOURCE)
    assert run(good, workspace, console).figures["rollouts"] == 4 * 3 * 4
