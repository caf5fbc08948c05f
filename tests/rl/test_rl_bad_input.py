"""What people give that cannot work: each a clear line or a counted skip."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from rl_tiny import save_tiny, shape, tiny_config
from safetensors.torch import load_file

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import train_tokenizer
from llmctl.model.transformer import RewardModel, Transformer
from llmctl.rl.stage import run
from llmctl.workspace import Workspace

REWARDS = """
import pathlib, time

def hangs_once(row):
    mark = pathlib.Path("hung")
    if not mark.exists():
        mark.touch()
        time.sleep(60)
    return row["reply"].count("e")

def declines(row):
    return None

def letters(row):
    return sum(c.islower() for c in row["reply"])
"""
NO_RULES = {"rewards": {"accuracy": 0, "format": 0}, "guard": {"every": 0}}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_bad.py").write_text(REWARDS)
    return save_tiny(tmp_path / "tiny")


@pytest.mark.parametrize("role", ["reward", "gold"])
def test_a_reward_model_that_reads_other_tokens_is_refused(
    role: str, model: Path, tmp_path: Path, workspace: Workspace, console: Console
) -> None:
    other = train_tokenizer(iter(["Quite other words, and none of them about numbers at all."] * 3), 290)
    save_model(tmp_path / "judge", RewardModel(Transformer(shape(other.vocab_size))), other)
    given = {role: str(tmp_path / "judge")} | ({"function": "mine_bad:letters"} if role == "gold" else {})
    with pytest.raises(UserError, match=r"(?s)judge.*another tokenizer than the model.*from the same sft model"):
        run(tiny_config(model, **given), workspace, console)


@pytest.mark.parametrize("method", ["reinforce", "ppo"])
def test_a_group_of_one_is_enough_where_nothing_is_compared_within_it(
    method: str, model: Path, workspace: Workspace, console: Console
) -> None:
    how = {"prompts": 6, "group": 1, "max_new_tokens": 6}
    made = run(tiny_config(model, method=method, rollouts=how, function="mine_bad:letters", **NO_RULES), workspace,
               console)  # fmt: skip
    rows = [r for r in made.metrics() if "loss" in r]
    assert len(rows) == 4 and all(math.isfinite(r["loss"]) and r["grad_norm"] > 0 for r in rows)


@pytest.mark.parametrize("method", ["dr-grpo", "rloo", "best-of-n"])
def test_a_group_of_one_is_refused_where_it_says_nothing(method: str, model: Path) -> None:
    with pytest.raises(ValueError, match=f"group is 1, but {method} compares the replies of a group: 2 or more"):
        tiny_config(model, method=method, rollouts={"group": 1})


def test_a_function_that_hangs_costs_one_reply(
    model: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    given = {**NO_RULES, "rewards": {"accuracy": 0, "format": 0, "timeout": 2}, "eval_items": 1}
    made = run(tiny_config(model, function="mine_bad:hangs_once", **given), workspace, Console(quiet=True))
    rows = [r for r in made.metrics() if "group_std" in r]
    assert [r["unscored"] for r in rows] == [pytest.approx(1 / 12), 0, 0, 0]
    assert "hangs_once took more than 2 s; 1 replies of the step are left out" in capsys.readouterr().err


def test_where_nothing_has_a_reward_nothing_is_learned(
    model: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    config = tiny_config(model, function="mine_bad:declines", train={"steps": 10, "precision": "fp32"}, **NO_RULES)
    made = run(config, workspace, Console(quiet=True))
    rows = [r for r in made.metrics() if "group_std" in r]
    assert [r["unscored"] for r in rows] == [1.0] * 10
    before, after = (load_file(p / "model.safetensors") for p in (model, made.path))
    assert all(torch.equal(t, after[n]) for n, t in before.items())
    assert "100% of the replies have no reward" in capsys.readouterr().err
