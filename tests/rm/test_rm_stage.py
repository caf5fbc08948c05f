"""The stage as a whole: it learns, resumes, and writes a folder that others read."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import render, render_prompt
from llmctl.model.folder import load_model, load_reward_model, reward_scale, save_model
from llmctl.rm import stage
from llmctl.rm.batches import RankingSource
from llmctl.rm.config import RmConfig
from llmctl.rm.data import read_data
from llmctl.rm.stage import plan, run
from llmctl.workspace import Workspace

FAST: dict[str, Any] = {"precision": "fp32", "optimizer": {"matrix_lr": 0.02, "lr": 0.01}}


def rows(n: int, seed: int) -> list[dict[str, Any]]:
    """Two to four replies of different lengths; the longer the better."""
    rng, found = random.Random(seed), []
    for i in range(n):
        counts = rng.sample(range(1, 13), rng.randint(2, 4))
        replies = [" ".join(rng.choices(["good", "bad", "well", "no"], k=c)) for c in counts]
        ranking = [sorted(counts, reverse=True).index(c) for c in counts]
        prompt = f"say {seed} {i} something"
        found.append({"prompt": prompt, "responses": replies, "ranking": ranking, "kind": f"k{i % 2}"})
    return found


def config(chat: str, **changes: Any) -> RmConfig:
    train = {**FAST, **changes.pop("train", {})}
    return RmConfig.model_validate({"model": chat, "comparisons": ["c"], "prompts": 16, "train": train, **changes})


def test_it_learns_a_rule_and_says_how_sure_it_is(put, chat: str, workspace: Workspace, console: Console) -> None:
    put("c", rows(300, 0), rows(60, 1))
    assert dict(plan(config(chat, epochs=3), workspace))["updates"].startswith("57 of 16")
    made = run(config(chat, epochs=3), workspace, console)
    f = made.figures
    head = f["headline"]
    assert head["label"] == "held-out pairs ranked right" and head["before"] < 80 and head["after"] > 90
    after = f["heldout"]
    assert after["low"] < after["accuracy"] == pytest.approx(head["after"] / 100, abs=0.001) and after["pairs"] > 100
    assert after["loss"] < f["heldout_before"]["loss"]
    assert set(f["by_kind"]) == {"k0", "k1"} and sum(k["pairs"] for k in f["by_kind"].values()) == after["pairs"]
    assert f["length_correlation"] > 0.7 and f["longer_is_better"] > 0.85
    assert f["steps"] == 57 and f["comparisons"] == 300
    steps = [r for r in made.metrics() if "accuracy" in r]
    assert len(steps) == 57 and steps[-1]["accuracy"] > steps[0]["accuracy"] and steps[-1]["margin"] > 0


def test_transformers_gives_the_same_scores(put, chat: str, workspace: Workspace, console: Console) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    put("c", rows(20, 0), rows(20, 1))
    made = run(config(chat, train={"steps": 3}), workspace, console)
    theirs = AutoModelForSequenceClassification.from_pretrained(made.path).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(made.path)
    ours, tokenizer = load_reward_model(made.path)
    talks = [
        [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": text}]
        for r in rows(20, 1)
        for text in r["responses"]
    ]
    rendered = [render(talk, tokenizer).ids for talk in talks]
    templated = their_tokenizer.apply_chat_template(talks, padding=True, return_tensors="pt", return_dict=True)
    lengths = torch.tensor([len(ids) for ids in rendered])
    assert torch.equal(templated["attention_mask"].sum(1), lengths) and len(set(lengths.tolist())) > 3
    with torch.no_grad():
        scores = theirs(**templated).logits[:, 0]
        assert torch.allclose(scores, ours(templated["input_ids"], lengths), atol=1e-4)
    # Those are the very replies it was measured on.
    bias, gain = reward_scale(made.path)
    rewards = gain * scores + bias
    assert (theirs.config.reward_gain, theirs.config.reward_bias) == (gain, bias)
    assert rewards.mean().item() == pytest.approx(0, abs=1e-3)
    assert rewards.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    assert "reward_bias" in (made.path / "README.md").read_text()


def test_rewards_are_scaled_over_the_models_own_answers(put, chat: str, workspace: Workspace, console: Console) -> None:
    put("c", rows(20, 0), rows(20, 1))
    scale = {"over": "model", "samples": 30, "max_new_tokens": 12}
    made = run(config(chat, train={"steps": 2}, scale=scale), workspace, console)
    judge, tokenizer = load_reward_model(made.path)
    bias, gain = reward_scale(made.path)
    # Sampled once more with the same seed, in the order in which they are measured.
    writer, _ = load_model(chat)
    held = read_data(config(chat), workspace, tokenizer, 96).heldout
    starts = list(dict.fromkeys(tuple(r.replies[0][: r.prompt].tolist()) for r in held))
    starts = [[*start, *render_prompt([], tokenizer)] for start in starts]
    found = Engine(writer, tokenizer, "fp32").generate(starts, Sampling(12, 1.0), n=2)
    answers = [start + pair[i].ids for i in (0, 1) for start, pair in zip(starts, found, strict=True)][:30]
    with torch.no_grad():
        rewards = [gain * float(judge(torch.tensor([ids]), torch.tensor([len(ids)]))) + bias for ids in answers]
    assert sum(rewards) / 30 == pytest.approx(0, abs=1e-3)
    assert sum(r * r for r in rewards) / 30 == pytest.approx(1, abs=1e-3)
    assert f"over answers of `{chat}`" in " ".join((made.path / "README.md").read_text().split())


def test_a_foreign_reward_model_has_its_scores_as_rewards_and_a_damaged_scale_is_named(
    put, chat: str, workspace: Workspace, console: Console
) -> None:
    put("c", rows(20, 0))
    made = run(config(chat, train={"steps": 1}), workspace, console)
    file = made.path / "config.json"
    found = json.loads(file.read_text())
    scale = {key: found.pop(key) for key in ("reward_gain", "reward_bias")}
    file.write_text(json.dumps(found))
    assert reward_scale(made.path) == (0.0, 1.0)
    for key, value in (("reward_gain", 0), ("reward_gain", "x"), ("reward_bias", float("nan"))):
        file.write_text(json.dumps(found | scale | {key: value}))
        with pytest.raises(UserError, match=f"damaged: .*{key}"):
            reward_scale(made.path)


def test_a_page_shows_what_was_measured(put, chat: str, workspace: Workspace, console: Console) -> None:
    put("c", rows(20, 0), rows(20, 1))
    made = run(config(chat, train={"steps": 2}), workspace, console)
    page = made.file("report.html").read_text()
    assert made.file("reliability.png").read_bytes()[:4] == b"\x89PNG"
    assert "k0" in page and f"{made.figures['heldout']['accuracy']:.1%}" in page and "the wrong way" in page
    assert sum(b["pairs"] for b in made.figures["calibration"]["bins"]) == made.figures["heldout"]["pairs"]


@pytest.mark.parametrize("loss", [{"form": "plackett-luce"}, {"ties": 0.5}, {"margin": 1.0}, {"center": 0.01}], ids=str)
def test_every_loss_learns_the_rule(
    put, chat: str, workspace: Workspace, console: Console, loss: dict[str, Any]
) -> None:
    put("c", rows(120, 0), rows(40, 1))
    head = run(config(chat, epochs=4, loss=loss), workspace, console).figures["headline"]
    assert head["after"] > 85


@pytest.mark.slow
def test_two_processes_are_one(put, chat: str, workspace: Workspace) -> None:
    put("c", rows(60, 0), rows(20, 1))
    # A fresh model gives all replies one score; its first gradient is rounding, which optimizers make large.
    model, tokenizer = load_model(chat)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    save_model(chat, model, tokenizer)
    found = []
    for out, processes in (("one", 1), ("two", 2)):
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes > 1 else []
        sets = ["train.precision=fp32", "train.steps=6", "prompts=8"]
        done = subprocess.run(
            [sys.executable, *start, "-m", "llmctl", "rm", chat, "c", "-o", out, "-w", str(workspace.root),
             *(part for one in sets for part in ("-s", one))],
            capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made = workspace.find(out, ["model"])
        found.append([(r["loss"], r["accuracy"], r["tokens"]) for r in made.metrics() if "accuracy" in r])
    assert len(found[0]) == 6
    assert [r[0] for r in found[0]] == pytest.approx([r[0] for r in found[1]], rel=2e-3)
    assert [r[1:] for r in found[0]] == [pytest.approx(r[1:]) for r in found[1]]


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    put, chat: str, tmp_path: Path, workspace: Workspace, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("c", rows(60, 0), rows(20, 1))
    made = run(config(chat, train={"steps": 8}, out="whole"), workspace, console)
    step, fails = RankingSource.batches, iter([False] * 5 + [True] + [False] * 9)

    def batches(self: RankingSource, number: int) -> Any:
        if next(fails):
            raise RuntimeError("the power is gone")
        return step(self, number)

    monkeypatch.setattr(RankingSource, "batches", batches)
    cut = config(chat, train={"steps": 8, "save_every": 2}, out="cut")
    with pytest.raises(RuntimeError):
        run(cut, workspace, console)
    # And once more after the last step: before the folder is whole.
    monkeypatch.setattr(stage, "save_model", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(cut, workspace, console)
    monkeypatch.undo()
    again = run(cut, workspace, console)
    assert again.file("model.safetensors").read_bytes() == made.file("model.safetensors").read_bytes()
    timeless = [{k: v for k, v in f.items() if k != "train_seconds"} for f in (made.figures, again.figures)]
    assert timeless[0] == timeless[1]


def test_without_anything_held_out_it_says_so(
    put, chat: str, workspace: Workspace, console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    put("c", rows(20, 0))
    made = run(config(chat, heldout=0, train={"steps": 2}), workspace, console)
    assert made.figures["headline"]["before"] is None
    assert "no comparison is held out" in capsys.readouterr().err
    assert made.figures["reward_gain"] > 0


def test_a_model_that_cannot_be_started_from_is_named(put, chat: str, workspace: Workspace, console: Console) -> None:
    put("c", rows(20, 0))
    made = run(config(chat, train={"steps": 1}), workspace, console)
    with pytest.raises(UserError, match="this is a reward model"):
        run(config(made.name, out="again"), workspace, console)
    with pytest.raises(UserError, match="no model named"):
        run(config("nobody", out="again"), workspace, console)


@pytest.mark.parametrize(
    "changes",
    [
        {"comparisons": []},
        {"heldout": 1},
        {"epochs": 0},
        {"loss": {"center": -1}},
        {"loss": {"ties": 1, "form": "plackett-luce"}},
    ],
)
def test_impossible_settings_are_refused(chat: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        config(chat, **changes)
