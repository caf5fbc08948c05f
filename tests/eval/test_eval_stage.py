"""The stage as a whole, on tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.eval import asking
from llmctl.eval.config import EvalConfig
from llmctl.eval.questions import Question
from llmctl.eval.stage import plan, run
from llmctl.generate.engine import Engine, Sample
from llmctl.model.chat_format import render
from llmctl.model.folder import load_reward_model
from llmctl.model.tokenizer import train_tokenizer
from llmctl.tools import toolbox
from llmctl.verify import KINDS, problems
from llmctl.workspace import Workspace

SMALL: dict[str, Any] = {"items": 6, "max_new_tokens": 8, "batch_size": 4, "python": False, "precision": "fp32"}


def test_everything_that_applies_is_found_through_the_lineage(shelf, workspace: Workspace, console: Console) -> None:
    shelf.tokens("tokens")
    shelf.model("base", "pretrain", ["tokens"])
    shelf.conversations("talks")
    shelf.model("chat", "sft", ["base", "talks"], seed=1)
    made = run(EvalConfig(models=["base", "chat"], **SMALL), workspace, console)
    results = json.loads(made.file("results.json").read_text())
    assert [(m["label"], m["chats"]) for m in results["models"]] == [("base", False), ("chat", True)]
    asked = {(s["model"], s["task"], s["group"]): s for s in results["scores"]}
    assert {t for _, t, _ in asked} == {"all", "sums", "names", "bits_per_byte", "loss", "perplexity"}
    assert asked["chat", "all", ""]["n"] == 12
    assert asked["base", "names", "known"]["n"] + asked["base", "names", "made-up"]["n"] == 6
    # An untrained model of 320 tokens spends about log2(320) bits a token, so more than one and less than eight a byte.
    assert 1 < asked["base", "bits_per_byte", ""]["value"] < 8.4
    assert [c["task"] for c in results["paired"]] == ["all", "sums", "names", "bits_per_byte"]
    assert made.figures["headline"]["label"] == "held-out answers right"
    for name in ("items/base.jsonl", "items/chat.jsonl", "scores.png", "curve-sft-chat-loss.png", "report.html"):
        assert made.file(name).stat().st_size > 0
    rows = [json.loads(line) for line in made.file("items/chat.jsonl").read_text().splitlines()]
    rows, texts = [r for r in rows if "reply" in r], [r for r in rows if "reply" not in r]
    assert texts and {r["task"] for r in texts} == {"bits_per_byte"}
    assert len(rows) == 12 and all({"messages", "answer", "reply", "correct"} <= set(r) for r in rows)
    assert not any(m["role"] == "assistant" for r in rows for m in r["messages"])  # the answer is not shown
    page = made.file("report.html").read_text()
    assert "Known and made-up names" in page and "chat against base" in page


def test_a_model_that_answers_as_taught_is_right_everywhere(
    shelf, workspace: Workspace, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worked answers themselves, in the place of a model's: nothing on the way from item to score may lose one."""
    known = {i.question: i.messages[-1] for k in KINDS for i in problems(k, 20, 0, heldout=True)}

    def recite(self: Engine, prompts: list[list[int]], *_: Any, **__: Any) -> list[list[Sample]]:
        found = []
        for prompt in prompts:
            question = self.tokenizer.decode(prompt).split("<|im_sep|>")[1].split("<|im_end|>")[0]
            ids = render([known[question]], self.tokenizer).ids
            text = self.tokenizer.decode(ids).split("<|im_sep|>")[1].removesuffix("<|im_end|>")
            found.append([Sample(ids, [], [], "stop", text)])
        return found

    monkeypatch.setattr(Engine, "generate", recite)
    shelf.conversations("talks", tuple(KINDS), 20)
    shelf.model("base", "pretrain")
    shelf.model("chat", "sft", ["base", "talks"])
    made = run(EvalConfig(models=["chat"], items=20), workspace, console)
    results = json.loads(made.file("results.json").read_text())
    assert {s["value"] for s in results["scores"]} == {1.0}
    assert {s["formatted"]["value"] for s in results["scores"]} == {1.0}
    refused = {s["group"]: s["refused"] / s["n"] for s in results["scores"] if s["task"] == "names"}
    assert (refused["made-up"], refused["known"]) == (1.0, 0.0)
    assert made.figures["headline"]["after"] == 100.0


def test_a_base_model_alone_is_asked_problems_made_by_code(shelf, workspace: Workspace, console: Console) -> None:
    shelf.model("base", "pretrain")
    made = run(EvalConfig(models=["base"], tasks=["sums", "lookup"], **SMALL), workspace, console)
    results = json.loads(made.file("results.json").read_text())
    assert {s["task"] for s in results["scores"]} == {"all", "sums", "lookup"}
    assert results["headline"]["before"] is None and results["headline"]["after"] == 0.0


def test_a_reward_model_is_measured_on_held_out_pairs(shelf, workspace: Workspace, console: Console) -> None:
    rows = [{"prompt": f"What is {i}?", "responses": ["one", "two", "three"], "ranking": [1, 0, 1]} for i in range(5)]
    shelf.rows("comparisons", "judged", rows)
    shelf.reward("judge", ["judged"])
    made = run(EvalConfig(models=["judge"], **SMALL), workspace, console)
    score = json.loads(made.file("results.json").read_text())["scores"][0]
    assert (score["task"], score["n"]) == ("pairs", 10)  # three pairs a ranking, of which one is a tie
    rows = [json.loads(line) for line in made.file("items/judge.jsonl").read_text().splitlines()]
    assert score["correct"] == sum(r["better_score"] > r["worse_score"] for r in rows)
    assert {r["better"] for r in rows} == {"two"}


def test_a_pair_beyond_the_context_is_read_to_its_end_and_said(shelf, workspace: Workspace, console: Console) -> None:
    """The score stands behind the reply, so what is cut off is the beginning of the prompt."""
    long, short = "A small town. " * 200, "What?"
    rows = [{"prompt": p, "responses": ["one two", "three"], "ranking": [0, 1]} for p in (long, short)]
    shelf.rows("comparisons", "judged", rows)
    shelf.reward("judge", ["judged"])
    made = run(EvalConfig(models=["judge"], **SMALL), workspace, console)
    results = json.loads(made.file("results.json").read_text())
    (note,) = results["notes"]
    assert note == "judge: 1 of 2 pairs are longer than its context and were read without their beginning"
    items = [json.loads(line) for line in made.file("items/judge.jsonl").read_text().splitlines()]
    cut = next(r for r in items if r.get("cut"))
    model, tokenizer = load_reward_model(workspace.find("judge", ["model"]).path)
    ids = render([*cut["prompt"], {"role": "assistant", "content": cut["better"]}], tokenizer).ids
    kept = torch.tensor([ids[-model.config.context :]])
    assert len(ids) > model.config.context and tokenizer.decode(kept[0].tolist()).count("one two") == 1
    assert cut["better_score"] == pytest.approx(model(kept, torch.tensor([kept.shape[1]])).item(), abs=1e-5)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    shelf, workspace: Workspace, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.conversations("talks", ("sums",))
    shelf.model("chat", "sft", ["talks"])
    config = {"models": ["chat"], "items": 10, "max_new_tokens": 6, "batch_size": 4, "precision": "fp32"}
    whole = run(EvalConfig(out="whole", **config), workspace, console)

    batches: list[int] = []
    real = Engine.generate

    def killed(self: Engine, prompts: list[list[int]], *rest: Any, **named: Any) -> Any:
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(len(prompts))
        return real(self, prompts, *rest, **named)

    monkeypatch.setattr(Engine, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        run(EvalConfig(out="cut", **config), workspace, console)
    batches.clear()
    again = run(EvalConfig(out="cut", **config), workspace, console)
    assert batches == [2]  # of 4 + 4 + 2 items, only the last batch was left
    assert again.digest == whole.digest


@pytest.mark.parametrize("damage", ["", "[{", '[{"id": "other"}]', "null", "[]", "[1]"])
def test_a_torn_batch_is_asked_again(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "batch.json"
    path.write_text(damage)
    asked = [Question("1", "sums", "", [{"role": "user", "content": "?"}], "1", "number")]
    assert asking._read(path, asked) is None


def test_what_cannot_be_measured_is_said(shelf, workspace: Workspace, console: Console) -> None:
    shelf.model("base", "pretrain")
    with pytest.raises(UserError, match=r"no task 'sumz' \(did you mean 'sums'\?\)"):
        run(EvalConfig(models=["base"], tasks=["sumz"], **SMALL), workspace, console)
    with pytest.raises(UserError, match="nothing to measure"):
        run(EvalConfig(models=["base"], tasks=["pairs"], **SMALL), workspace, console)
    shelf.rows("conversations", "plain", [{"messages": [{"role": "user", "content": "hi"}]}])
    with pytest.raises(UserError, match="no row has a 'check'"):
        run(EvalConfig(models=["base"], conversations=["plain"], **SMALL), workspace, console)
    with pytest.raises(UserError, match="no model named 'bass'"):
        plan(EvalConfig(models=["bass"]), workspace)


def test_the_plan_counts_without_asking(shelf, workspace: Workspace) -> None:
    shelf.tokens("tokens")
    shelf.model("base", "pretrain", ["tokens"])
    rows = dict(plan(EvalConfig(models=["base"], tasks=["sums", "bits_per_byte"], items=7), workspace))
    assert rows["items: sums"] == "7" and "parameters" in rows["base"] and "tokens" in rows["bits per byte"]


def test_bits_per_byte_do_not_depend_on_how_the_text_was_stored(shelf, workspace: Workspace, console: Console) -> None:
    shelf.tokens("mine")
    shelf.tokens("foreign", train_tokenizer(iter(["other words altogether"]), 280))
    shelf.model("base", "pretrain")
    found = []
    for tokens in ("mine", "foreign"):
        config = EvalConfig(out=tokens, models=["base"], tasks=["bits_per_byte"], tokens=tokens, precision="fp32")
        found.append(json.loads(run(config, workspace, console).file("results.json").read_text())["scores"][0]["value"])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_a_tool_that_stays_off_is_said_where_it_was_asked_for(
    shelf, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(toolbox, "why_off", lambda: "user namespaces are refused")
    shelf.conversations("talks")
    shelf.model("chat", "sft", ["talks"])
    line = "warning: the python tool is off: user namespaces are refused"
    for python, said in ((True, 1), (False, 0)):
        run(EvalConfig(models=["chat"], **{**SMALL, "items": 1, "python": python}), workspace, Console())
        assert capsys.readouterr().err.splitlines().count(line) == said
