"""Every method as settings of the one loop: its switches, that it learns, and that a killed run ends the same."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rl_tiny import save_tiny, tiny_config
from safetensors.torch import load_file
from torch._dynamo.testing import CompileCounter

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.model.folder import load_model
from llmctl.rl.best_of_n import content, pass_at
from llmctl.rl.config import MethodSettings
from llmctl.rl.methods import METHODS
from llmctl.rl.packs import packed
from llmctl.rl.policy import PolicyLoss
from llmctl.rl.rewards import Rewards, Rollout
from llmctl.rl.rollouts import Practice
from llmctl.rl.stage import run, tools_for
from llmctl.workspace import Workspace

POLICY = [m for m in METHODS if m not in ("best-of-n", "dpo")]
LIKES_E = "def letter_e(row):\n    return row['reply'].count('e')\n"


@pytest.fixture(autouse=True)
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letters_rl.py").write_text(LIKES_E)
    monkeypatch.chdir(tmp_path)


def config(tmp_path: Path, method: str | dict, **more: Any) -> Any:
    data = {
        "function": "letters_rl:letter_e",
        "rewards": {"accuracy": 0, "format": 0},
        "guard": {"every": 0},
        "method": method,
        "micro_tokens": 4096,
    }
    model = tmp_path / "tiny"
    return tiny_config(model if model.exists() else save_tiny(model), **(data | more))


def practice(tmp_path: Path, method: str | dict, **more: Any) -> Practice:
    settings = config(tmp_path, method, function="", rewards={}, **more)
    policy, tokenizer = load_model(tmp_path / "tiny")
    return Practice(settings, policy, tokenizer, Rewards(settings.rewards), tools_for)


def pairs(tmp_path: Path) -> Path:
    rows = [
        {"prompt": f"What is {i}?", "responses": ["The answer is it", "is it it"], "ranking": [0, 1]} for i in range(40)
    ]
    rows += [{"prompt": "Same", "chosen": "x", "rejected": "x"}, {"prompt": "Empty", "chosen": "x", "rejected": ""}]
    rows += [{"prompt": "Tied", "responses": ["a", "b"], "ranking": [0, 0]}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path / "pairs.jsonl"


def test_a_method_is_a_name_for_switches_and_a_switch_that_is_set_wins() -> None:
    assert MethodSettings.model_validate("dr-grpo") == MethodSettings(name="dr-grpo", scale=False, normalise="constant")
    mine = MethodSettings(name="dapo", clip_high=0.5)
    assert (mine.clip_high, mine.normalise, mine.dynamic_sampling) == (0.5, "token", 2)
    assert MethodSettings.model_validate(mine.model_dump()) == mine
    assert MethodSettings() == MethodSettings.model_validate("grpo")


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ({"name": "gpro"}, "grpo"),
        ({"beta": 0.1, "kl": "k1"}, "no gradient but noise"),
        ({"kl_target": 6.0}, "needs a beta"),
        ({"dual_clip": 0.5}, "above 1"),
    ],
)
def test_switches_that_make_no_sense_are_said(method: dict, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        MethodSettings.model_validate(method)


@pytest.mark.slow
@pytest.mark.parametrize("method", POLICY)
def test_every_method_makes_likelier_what_is_rewarded(
    method: str, tmp_path: Path, workspace: Workspace, console: Console
) -> None:
    keep = {"name": method, "keep": "best"} if method == "expert-iteration" else method
    settings = config(
        tmp_path, keep, rollouts={"prompts": 8, "group": 8, "max_new_tokens": 8},
        train={"steps": 72 if method == "ppo" else 24, "precision": "fp32", "optimizer": {"lr": 4e-3}},
    )  # fmt: skip
    rows = [r for r in run(settings, workspace, console).metrics() if "reward_own" in r]
    assert rows[-1]["reward_own"] > 2 * rows[0]["reward_own"]


@pytest.mark.parametrize(
    "method",
    ["ppo", "gspo", {"name": "rloo", "beta": 0.1, "kl": "k1", "kl_in": "reward", "kl_target": 2.0, "updates": 2}],
    ids=["ppo", "gspo", "rloo with KL"],
)
def test_a_run_cut_off_between_two_updates_of_a_roll_out_ends_the_same_bit_for_bit(
    method: Any, tmp_path: Path, workspace: Workspace, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, method, train={"steps": 7, "save_every": 1, "precision": "fp32"})
    whole = run(settings.model_copy(update={"out": "whole"}), workspace, console)
    batches = Practice.batches

    def fail(self: Practice, step: int) -> list:
        if step == 5:
            raise RuntimeError("the lights went out")
        return batches(self, step)

    monkeypatch.setattr(Practice, "batches", fail)
    with pytest.raises(RuntimeError):
        run(settings, workspace, console)
    monkeypatch.setattr(Practice, "batches", batches)
    resumed = run(settings, workspace, console)
    one, other = (load_file(a.path / "model.safetensors") for a in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    last = [[r for r in a.metrics() if "group_std" in r][-1] for a in (whole, resumed)]
    assert last[0].get("beta") == last[1].get("beta") and last[0]["reward"] == last[1]["reward"]
    assert method == "gspo" or last[0]["beta"] not in (0.05, 0.1)  # the controller has moved


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_a_roll_out_ends_the_same_bit_for_bit(tmp_path: Path) -> None:
    """SIGKILL to the process while the reward function, which a roll-out waits for, is at work."""
    slow = LIKES_E.replace("return", "open('turns', 'a').write('.')\n    import time; time.sleep(0.004)\n    return")
    (tmp_path / "letters_rl.py").write_text(slow)
    save_tiny(tmp_path / "tiny")
    sets = {
        "function": "letters_rl:letter_e", "rewards.accuracy": 0, "rewards.format": 0, "guard.every": 0,
        "sums.digits": [1, 1], "rollouts.prompts": 4, "rollouts.group": 4, "rollouts.max_new_tokens": 8,
        "method.name": "ppo", "train.steps": 12, "train.save_every": 1, "train.precision": "fp32", "eval_items": 4,
    }  # fmt: skip
    flags = [word for k, v in sets.items() for word in ("-s", f"{k}={json.dumps(v)}")]

    def command(name: str) -> list[str]:
        return [sys.executable, "-m", "llmctl.cli.main", "rl", "tiny", "-o", name, "-w", "w", "-q", *flags]

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(command("whole"), check=True, env=environment, timeout=300)
    calls = 16 * 3
    (tmp_path / "turns").unlink()
    cut = subprocess.Popen(command("cut"), env=environment)
    turns = tmp_path / "turns"
    while not turns.exists() or len(turns.read_text()) < 2 * 16 + 7:  # in the third of the three roll-outs
        assert cut.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    cut.send_signal(signal.SIGKILL)
    assert cut.wait() == -signal.SIGKILL
    assert len(turns.read_text()) < calls
    assert not (tmp_path / "w/model/cut").exists()
    subprocess.run(command("cut"), check=True, env=environment, timeout=300)
    one, other = (load_file(tmp_path / f"w/model/{name}/model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [
        [r["step"] for r in Workspace(tmp_path / "w").find(n, ["model"]).metrics() if "loss" in r]
        for n in ("whole", "cut")
    ]
    assert steps[0] == steps[1] == list(range(1, 13))


def test_on_policy_the_ratio_is_one_and_no_kl(tmp_path: Path, workspace: Workspace, console: Console) -> None:
    settings = config(tmp_path, "ppo", train={"steps": 1, "precision": "fp32"})
    row: dict[str, Any] = {}
    for part in run(settings, workspace, console).metrics():
        row |= part if part["step"] == 1 else {}
    assert abs(row["kl_k1"]) < 1e-5 and row["kl"] < 1e-6 and row["clipped"] == 0
    assert row["value_loss"] > 0 and row["value_mean"] == 0  # the critic's head begins at zero
    assert row["sampler_gap"] < 1e-4


def test_on_policy_the_trainers_own_log_probabilities_are_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(self: Rewards, rollouts: list[Rollout]) -> None:
        for r in rollouts:
            r.total = r.sample.ids[0] % 7

    monkeypatch.setattr(Rewards, "score", score)
    made = practice(tmp_path, {"name": "grpo", "sampler_cap": 1.5})
    rows = made.collect(0)
    assert rows and "old" not in rows, "no pass of its own"
    rows["sampled"] -= 0.3 * torch.rand_like(rows["sampled"])  # a sampler that computes otherwise
    loss = PolicyLoss(made.config.method, 1.0, made.weight)
    found = []
    for old in ({}, {"old": made._logprobs(made.model, rows).detach()}):
        made.model.zero_grad()
        total = loss(made.model, packed(rows | old, made.shape)[0]).total
        total.backward()
        found.append((float(total.detach()), torch.cat([p.grad.flatten() for p in made.model.parameters()])))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5) != 0
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-4)


def test_the_first_of_several_updates_finds_the_old_log_probabilities(tmp_path: Path) -> None:
    made = practice(
        tmp_path, {"name": "gspo", "advantage": "none"}, rollouts={"prompts": 4, "group": 2}, micro_tokens=64
    )
    made.rewards.score = lambda found: [setattr(r, "total", 1.0) for r in found] and None  # type: ignore[method-assign, func-returns-value]
    first = made.batches(0)
    assert len(first) > 1 and all("old" not in b.extra for b in first), "no pass of its own"
    loss = PolicyLoss(made.config.method, 1.0, made.weight, remember=made.remember)
    for batch in first:
        loss(made.model, batch).total.backward()
    again = made.batches(1)
    expected = made._logprobs(made.model, {k: v for k, v in made._rows.items() if k != "old"})
    torch.testing.assert_close(made._rows["old"], expected)
    assert expected.any() and all("old" in b.extra for b in again)
    assert "old" not in made.batches(2)[0].extra  # of new roll-outs
    assert made.state_dict()["shape"] == [made.shape.rows, made.shape.width]  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_whether_to_compile_is_decided_without_a_roll_out(method: str, tmp_path: Path) -> None:
    made = practice(tmp_path, method, train={"compile": "auto", "steps": 4})
    assert made.compiles is False and not made.last and made.tokens_a_step == 3 * 4 * 8


def test_one_graph_serves_a_compiled_run(tmp_path: Path) -> None:
    made = practice(tmp_path, {"name": "grpo", "advantage": "none"}, micro_tokens=128)
    made.rewards.score = lambda found: [setattr(r, "total", 1.0) for r in found] and None  # type: ignore[method-assign, func-returns-value]
    made.compiles = True
    counter = CompileCounter()
    forward, passes = torch.compile(made.model, backend=counter, dynamic=False), 0
    for step in range(3):
        for batch in made.batches(step):
            assert batch.ids.shape == (made.shape.rows, made.shape.width)  # type: ignore[union-attr]
            passes += len(forward(batch.ids, batch.positions, batch.segments)) > 0
    assert passes > 3 and counter.frame_count == 1


@pytest.mark.slow
def test_compiled_ppo_learns_what_it_learns_as_it_is(
    tmp_path: Path, workspace: Workspace, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy and critic are compiled each by itself, and the critic is also asked without gradients, for its values.
    What dynamo traces is run as it is: inductor gives the same, and takes a minute and a half.
    """
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    found = {}
    for compiles in (False, True):
        torch.compiler.reset()
        settings = config(
            tmp_path, {"name": "ppo", "updates": 2}, out=f"c{compiles}".lower(),
            train={"steps": 4, "precision": "fp32", "compile": compiles},
        )  # fmt: skip
        found[compiles] = [r for r in run(settings, workspace, console).metrics() if "value_loss" in r]
    assert len(found[True]) == len(found[False]) == 4
    for compiled, plain in zip(found[True], found[False], strict=True):
        for key in ("loss", "value_loss", "entropy", "kl", "grad_norm"):
            assert compiled[key] == pytest.approx(plain[key], rel=1e-3, abs=1e-5), key


def test_the_reward_is_earned_at_the_last_token_and_the_penalty_at_each(tmp_path: Path) -> None:
    p = practice(
        tmp_path, {"name": "ppo", "whiten": False, "gae_lambda": 1.0, "kl_target": 0}, train={"precision": "fp32"}
    )
    groups = p.attempt(0)
    weights = {"index": torch.arange(2), "weights": torch.tensor([[0.0, 1, 1, 0], [0, 0, 1, 1]])}
    rows: Any = {**weights, "ids": torch.zeros(2, 4)}
    p._values = lambda rows: torch.full((2, 4), 0.5)  # type: ignore[method-assign]
    p._estimate(rows, torch.tensor([1.0, 2.0]), 0.1 * rows["weights"])
    # Undiscounted: what is still to come is the reward less the penalties of the tokens from here on.
    assert rows["returns"].flatten().tolist() == pytest.approx([0, 0.8, 0.9, 0, 0, 0, 1.8, 1.9])
    assert rows["advantages"].flatten().tolist() == pytest.approx([0, 0.3, 0.4, 0, 0, 0, 1.3, 1.4])
    assert groups and not groups[0][0].item.heldout


def test_dynamic_sampling_draws_other_problems_until_enough_have_a_spread(tmp_path: Path) -> None:
    p = practice(tmp_path, {"dynamic_sampling": 3}, rollouts={"prompts": 3, "group": 2, "max_new_tokens": 4})
    found = p.attempt(0)  # untrained: nothing is ever right
    assert len(found) == 4 * 3
    assert len({g[0].item.id for g in found}) > 3
    p.rewards.score = lambda rollouts: [setattr(r, "total", float(i)) for i, r in enumerate(rollouts)] and None  # type: ignore[method-assign, func-returns-value]
    assert len(p.attempt(0)) == 3


def test_best_of_n_makes_conversations_and_goes_on_where_it_was_cut_off(
    tmp_path: Path, workspace: Workspace, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(tmp_path, {"name": "best-of-n", "keep": "best"}, train={"steps": 3})
    whole = run(settings.model_copy(update={"out": "whole"}), workspace, console)
    assert (whole.kind, settings.made_kind) == ("conversations", "conversations")
    rows = [json.loads(line) for line in whole.file("train.jsonl").read_text().splitlines()]
    assert rows and all([m["role"] for m in r["messages"]] == ["user", "assistant"] for r in rows)
    assert whole.figures["reward_best"] > whole.figures["reward_mean"]
    score, calls = Rewards.score, []

    def fail(self: Rewards, rollouts: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("the lights went out")
        score(self, rollouts)

    monkeypatch.setattr(Rewards, "score", fail)
    with pytest.raises(RuntimeError):
        run(settings, workspace, console)
    resumed = run(settings, workspace, console)
    assert len(calls) == 2 + 3  # the first part was not answered again
    assert resumed.file("train.jsonl").read_text() == whole.file("train.jsonl").read_text()


def test_pass_at_k_and_tool_calls_as_parts() -> None:
    assert pass_at(1, 4, 1) == 0.25
    assert pass_at(2, 4, 1) == pytest.approx(0.5)
    assert pass_at(4, 4, 0) == 0
    text = "So <|python_start|>1+1<|python_end|><|output_start|>2<|output_end|>two"
    assert [p["type"] for p in content(text)] == ["text", "python", "output", "text"]  # type: ignore[index]
    assert content("plain") == "plain"


def test_dpo_learns_which_reply_is_better(tmp_path: Path, workspace: Workspace, capsys: pytest.CaptureFixture) -> None:
    settings = config(tmp_path, "dpo", data=[str(pairs(tmp_path))], rollouts={"prompts": 8},
                      train={"steps": 12, "precision": "fp32", "optimizer": {"lr": 3e-3}})  # fmt: skip
    made = run(settings, workspace, Console(quiet=True))
    rows = [r for r in made.metrics() if "margin" in r]
    assert rows[0]["margin"] == 0 and settings.method.sft_weight
    assert rows[0]["loss"] == pytest.approx(0.6931 + settings.method.sft_weight * rows[0]["chosen_nll"], abs=1e-3)
    assert rows[-1]["margin"] > 0.05 and rows[-1]["chosen"] > 0 > rows[-1]["rejected"]
    assert made.figures["accuracy_after"] == 1.0
    assert made.figures["left_out"] == {"tied": 1, "too_long": 0, "unreadable": 2}
    assert "1 without a better reply" in capsys.readouterr().err


def test_with_its_likelihood_the_better_of_two_near_replies_gains_more(
    tmp_path: Path, workspace: Workspace, console: Console
) -> None:
    near = {"chosen": "The answer is 46. it is 46", "rejected": "The answer is 41. it is 41"}
    rows = [{"prompt": f"What is {i}?", **near} for i in range(40)]
    (tmp_path / "near.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    gained = {}
    for weight in (0.0, 5.0):
        settings = config(tmp_path, {"name": "dpo", "sft_weight": weight}, data=[str(tmp_path / "near.jsonl")],
                          rollouts={"prompts": 8}, train={"steps": 12, "precision": "fp32", "optimizer": {"lr": 1e-3}},
                          out=f"w{weight:g}")  # fmt: skip
        gained[weight] = [r for r in run(settings, workspace, console).metrics() if "margin" in r][-1]
    assert gained[5.0]["chosen"] > gained[0.0]["chosen"] + 1
    assert gained[5.0]["chosen_nll"] < gained[0.0]["chosen_nll"]


def test_dpo_needs_comparisons_that_compare(tmp_path: Path, workspace: Workspace, console: Console) -> None:
    with pytest.raises(ValueError, match="name them in `data`"):
        config(tmp_path, "dpo")
    (tmp_path / "tied.jsonl").write_text('{"prompt": "x", "responses": ["a", "b"], "ranking": [0, 0]}\n')
    with pytest.raises(UserError, match="no comparison"):
        run(config(tmp_path, "dpo", data=[str(tmp_path / "tied.jsonl")]), workspace, console)


def test_prompts_from_data(tmp_path: Path, workspace: Workspace, console: Console) -> None:
    made = run(config(tmp_path, "grpo", data=[str(pairs(tmp_path))]), workspace, console)
    assert made.figures["headline"]["label"].startswith("reward on held-out")
    with pytest.raises(UserError, match="no row has an `answer` and a `check`"):
        run(config(tmp_path, "grpo", data=[str(pairs(tmp_path))], function="", rewards={}), workspace, console)
    rows = [{"messages": [{"role": "user", "content": f"Double {i}."}, {"role": "assistant", "content": str(2 * i)}],
             "answer": str(2 * i), "check": "number"} for i in range(30)]  # fmt: skip
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    judged = run(
        config(tmp_path, "grpo", data=[str(tmp_path / "mine.jsonl")], function="", rewards={}), workspace, console
    )
    assert "accuracy_before" in judged.figures
    with pytest.raises(UserError, match="leave no room"):
        run(config(tmp_path, "grpo", data=[str(pairs(tmp_path))], rollouts={"max_new_tokens": 95}), workspace, console)


def test_a_base_model_practises_on_plain_text_that_a_string_ends(tmp_path: Path) -> None:
    p = practice(tmp_path, "grpo", rollouts={"prompts": 2, "group": 2, "max_new_tokens": 30, "stop": ["e", "a", "1"],
                                             "template": "Q: {question}\nA:"})  # fmt: skip
    found = [r for g in p.attempt(0) for r in g]
    assert all(p.tokenizer.decode(r.prompt[1:]) == f"Q: {r.item.question}\nA:" for r in found)
    ended = [r for r in found if not r.truncated]
    assert ended and all(set("ea1") & set(r.sample.text[-9:]) or r.sample.ids[-1] == p.tokenizer.eos_id for r in ended)
    with pytest.raises(ValueError, match=r"no \{question\}"):
        config(tmp_path, "grpo", rollouts={"template": "Q:"})
