"""The stage as a whole: it learns what is rewarded, resumes bit for bit, and says what is wrong in a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from rl_tiny import save_tiny, tiny_config
from safetensors.torch import load_file

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.generate.engine import Engine
from llmctl.model.folder import load_model
from llmctl.rl import rewards as rewards_module
from llmctl.rl.rewards import Rewards, Rollout
from llmctl.rl.rollouts import Practice
from llmctl.rl.stage import plan, run, tools_for
from llmctl.tools import toolbox
from llmctl.verify import Verdict, problems
from llmctl.workspace import Artifact, Workspace


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny")


@pytest.fixture
def likes_the_letter_e(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that even an untrained model satisfies now and then."""
    monkeypatch.setattr(Rewards, "score", score_by_letter)


def score_by_letter(self: Rewards, rollouts: Sequence[Rollout]) -> None:
    for r in rollouts:
        r.correct = "e" in r.sample.text
        r.parts = {"accuracy": float(r.correct)}
        r.total = r.sample.text.count("e")


def steps(made: Artifact) -> list[int]:
    """The steps that made new roll-outs."""
    return [r["step"] for r in made.metrics() if "group_std" in r]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.usefixtures("likes_the_letter_e")
def test_what_is_rewarded_becomes_likelier(model: Path, workspace: Workspace, console: Console) -> None:
    optimizer = {"matrix_lr": 0.02, "lr": 3e-3}
    config = tiny_config(
        model,
        rollouts={"prompts": 8, "group": 8, "max_new_tokens": 8},
        train={"steps": 24, "precision": "fp32", "optimizer": optimizer},
    )
    made = run(config, workspace, console)
    rows = [r for r in made.metrics() if "group_std" in r]
    assert len(rows) == 24
    assert sum(r["reward"] for r in rows[-3:]) > 2 * sum(r["reward"] for r in rows[:3])
    assert made.figures["headline"]["label"] == "held-out sums right"
    assert load_model(made.path)[0].config.layers == 2
    assert "Reinforcement learning (grpo)" in made.file("README.md").read_text()


@pytest.mark.parametrize("method", [{}, {"updates": 2, "beta": 0.05}, {"scale": False, "normalise": "constant"}])
@pytest.mark.usefixtures("likes_the_letter_e")
def test_a_run_that_was_cut_off_ends_the_same_bit_for_bit(
    method: dict, model: Path, workspace: Workspace, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(model, method=method)
    whole = run(config.model_copy(update={"out": "whole"}), workspace, console)
    cut_off = config.model_copy(update={"out": "cut"})

    def fail(self: Practice, step: int) -> list:
        if step == 3:
            raise RuntimeError("the lights went out")
        return batches(self, step)

    batches = Practice.batches
    monkeypatch.setattr(Practice, "batches", fail)
    with pytest.raises(RuntimeError, match="lights"):
        run(cut_off, workspace, console)
    monkeypatch.setattr(Practice, "batches", batches)
    resumed = run(cut_off, workspace, console)
    for name, tensor in weights(whole.path).items():
        assert torch.equal(tensor, weights(resumed.path)[name]), name
    assert any(not torch.equal(t, weights(model)[n]) for n, t in weights(whole.path).items())
    assert steps(resumed) == steps(whole) == list(range(1, 5, method.get("updates", 1)))
    assert resumed.figures["headline"] == whole.figures["headline"]


def test_without_any_reward_nothing_changes_and_it_says_so(
    model: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    made = run(tiny_config(model, train={"steps": 10, "precision": "fp32"}), workspace, Console(quiet=True))
    assert made.figures["groups_without_spread_last"] == 1
    assert "teach nothing, being all wrong" in capsys.readouterr().err
    for name, tensor in weights(model).items():
        assert torch.equal(tensor, weights(made.path)[name])


def test_a_reward_model_is_enough(model: Path, tmp_path: Path, workspace: Workspace, console: Console) -> None:
    judge = save_tiny(tmp_path / "judge", reward=True, seed=1)
    config = tiny_config(model, reward=str(judge), rewards={"accuracy": 0, "format": 0})
    rows = [r for r in run(config, workspace, console).metrics() if "group_std" in r]
    assert all(r["reward"] == pytest.approx(r["reward_learned"], abs=1e-6) and r["group_std"] > 0 for r in rows)


def test_mistakes_are_said_in_a_line(model: Path, tmp_path: Path, workspace: Workspace, console: Console) -> None:
    with pytest.raises(UserError, match="no reward model"):
        run(tiny_config(model, reward=str(model)), workspace, console)
    with pytest.raises(ValueError, match="did you mean 'sums'"):
        tiny_config(model, task="sum")
    with pytest.raises(ValueError, match="every reward weighs 0"):
        tiny_config(model, rewards={"accuracy": 0, "format": 0})
    with pytest.raises(ValueError, match="group is 1, but grpo compares the replies of a group"):
        tiny_config(model, rollouts={"group": 1})


def test_roll_outs_are_a_function_of_seed_turn_and_weights(model: Path) -> None:
    config = tiny_config(model)
    policy, tok = load_model(model)
    practice = Practice(config, policy, tok, Rewards(config.rewards), tools_for)

    def ids(turn: int) -> list:
        return [r.sample.ids for group in practice.attempt(turn) for r in group]

    assert ids(5) == ids(5) != ids(6)
    assert all(not r.item.heldout for group in practice.last for r in group)


def test_sampled_logprobs_are_those_of_a_full_forward(model: Path) -> None:
    config = tiny_config(model, rollouts={"prompts": 3, "group": 2, "max_new_tokens": 8, "temperature": 0.7})
    policy, tok = load_model(model)
    practice = Practice(config, policy, tok, Rewards(config.rewards), tools_for)
    for group in practice.attempt(0):
        for r in group:
            full = Engine(policy, tok, "fp32").score([r.prompt], [r.sample.ids], 0.7)[0]
            assert r.sample.logprobs == pytest.approx(full, abs=1e-4)


def test_a_cut_reply_is_never_right(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards_module, "check", lambda item, reply, run: Verdict(True, True, "1"))
    policy, tok = load_model(model)
    config = tiny_config(model, rollouts={"prompts": 4, "group": 4, "max_new_tokens": 2})
    found = [r for g in Practice(config, policy, tok, Rewards(config.rewards), tools_for).attempt(0) for r in g]
    assert all(r.correct != r.truncated for r in found)
    assert {r.total for r in found if r.truncated} == {0.0}


def test_the_plan_counts(model: Path, workspace: Workspace) -> None:
    rows = dict(plan(tiny_config(model), workspace))
    assert rows["roll-outs a step"] == "3 problems x 4 = 12"
    assert rows["tokens a step, at most"] == "96"
    assert rows["reward"] == "1 x right + 0.1 x in form"


def test_each_task_gets_its_tools() -> None:
    assert tools_for(problems("sums", 2, 0, False)) is None
    found = problems("lookup", 2, 0, False)
    tools = tools_for(found)
    assert tools is not None
    assert found[0].document is not None
    assert found[0].document["title"] in tools("search", found[0].document["title"])
    assert tools("python", "print(1)") != "1"
    python = tools_for(problems("python", 1, 0, False))
    assert python is not None
    assert python("python", "print(6 * 7)").strip() == "42"


@pytest.mark.parametrize(("task", "said"), [("python", 1), ("sums", 0)])
def test_a_tool_that_stays_off_is_said_where_the_task_needs_it(
    model: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    task: str, said: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(toolbox, "why_off", lambda: "user namespaces are refused")
    run(tiny_config(model, task=task, eval_items=2, train={"steps": 1}), workspace, Console())
    line = "warning: the python tool is off: user namespaces are refused"
    assert capsys.readouterr().err.splitlines().count(line) == said
