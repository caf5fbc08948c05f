"""Fine-tuning from conversations to a chat model."""

from __future__ import annotations

from typing import Any

import pytest
from sft_made import make_conversations, make_model, rows, write_rows

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import render, render_prompt
from llmctl.model.folder import load_model
from llmctl.sft import data as sft_data
from llmctl.sft import stage
from llmctl.sft.answers import spread, toolbox
from llmctl.sft.config import SftConfig
from llmctl.train.packing import PackedSource


def config(**changes: Any) -> SftConfig:
    small = {
        "model": "base",
        "conversations": ["made"],
        "batch_tokens": 512,
        "eval_items": 12,
        "eval_new_tokens": 12,
        "train": {"steps": 40, "save_every": 5, "precision": "fp32"},
    }
    return SftConfig.model_validate({**small, **changes})


def test_an_assistant_learns_to_answer(workspace, console):
    make_model(workspace)
    make_conversations(workspace)
    made = stage.run(config(), workspace, console)
    head = made.figures["headline"]
    assert head["label"] == "held-out answers right" and head["unit"] == "%"
    assert head["before"] <= 10 and head["after"] >= 90
    assert set(made.figures["right_by_kind"]) == {"red", "blue"}
    assert made.figures["heldout_loss_after"] < 0.7 * made.figures["heldout_loss_before"]
    model, tokenizer = load_model(made.path)
    prompt = render_prompt([{"role": "user", "content": "Please say blue, now number 7."}], tokenizer)
    (sample,) = Engine(model, tokenizer, "fp32").generate([prompt], Sampling(12, temperature=0.0))[0]
    assert sample.text == "It is blue." and sample.finish == "stop"
    assert [r["step"] for r in made.metrics() if "answers" in r] == [0, 40]


def test_an_interrupted_run_ends_with_the_same_weights(workspace, console, monkeypatch):
    make_model(workspace)
    make_conversations(workspace)
    whole = stage.run(config(out="whole"), workspace, console)
    there = PackedSource.batches

    def dies(self: PackedSource, step: int) -> list:
        if step == 23:
            raise MemoryError
        return there(self, step)

    monkeypatch.setattr(PackedSource, "batches", dies)
    with pytest.raises(MemoryError):
        stage.run(config(out="broken"), workspace, console)
    monkeypatch.setattr(PackedSource, "batches", there)
    resumed = stage.run(config(out="broken"), workspace, console)
    weights = (whole.path / "model.safetensors").read_bytes()
    assert (resumed.path / "model.safetensors").read_bytes() == weights
    assert resumed.figures["headline"] == whole.figures["headline"]


def test_files_of_ones_own_without_checks(workspace, tmp_path, capsys):
    make_model(workspace)
    path = write_rows(tmp_path / "mine.jsonl", [*rows(100, 3, checked=False), {"who": "knows"}])
    made = stage.run(config(conversations=[str(path)], heldout_share=0.2), workspace, Console())
    head = made.figures["headline"]
    assert head["label"] == "held-out loss" and head["after"] < head["before"]
    assert made.figures["skipped_rows"] == 1
    said = capsys.readouterr().err
    assert "messages" in said and "mine.jsonl:101" in said


def test_without_anything_held_out(workspace, tmp_path, console):
    make_model(workspace)
    path = write_rows(tmp_path / "few.jsonl", rows(6, 3))
    made = stage.run(config(conversations=[str(path)], heldout_share=0, train={"steps": 3}), workspace, console)
    assert made.figures["headline"]["label"] == "training loss"


def test_the_split_is_by_question(workspace, tmp_path):
    some = rows(200, 4)
    again = [{**row, "messages": [row["messages"][0], {"role": "assistant", "content": "No."}]} for row in some]
    path = write_rows(tmp_path / "a.jsonl", some + again)
    found = sft_data.load([str(path)], 0.25, workspace)
    trained, kept = ({sft_data.question_of(r) for r in part} for part in (found.train, found.heldout))
    assert not trained & kept and 0.15 < len(kept) / len(trained | kept) < 0.35
    other = write_rows(tmp_path / "b.jsonl", found.heldout)
    both = sft_data.load([str(path), str(other)], 0.25, workspace)
    assert both.train and not {sft_data.question_of(r) for r in both.train} & kept


def test_a_question_held_out_in_one_source_is_not_trained_on_from_another(workspace, tmp_path):
    make_conversations(workspace)
    path = write_rows(tmp_path / "leak.jsonl", rows(30, 2))  # the artifact's held-out rows
    found = sft_data.load(["made", str(path)], 0.0, workspace)
    assert found.overlap >= 30
    assert not {sft_data.question_of(r) for r in found.train} & {sft_data.question_of(r) for r in found.heldout}


def test_an_answer_is_never_cut(workspace):
    tokenizer = make_model(workspace)
    turn = [{"role": "user", "content": "Please say red."}, {"role": "assistant", "content": "It is red."}]
    sizes = [len(render(turn * n, tokenizer)) for n in (1, 2, 3)]
    four = {"messages": turn * 4}
    fits_two = sft_data.rendered([four], tokenizer, sizes[2] - 2)
    assert fits_two.shortened == 1 and fits_two.examples[0][0] == render(turn * 2, tokenizer).ids
    exactly = sft_data.rendered([{"messages": turn * 3}], tokenizer, sizes[2] - 1)
    assert not exactly.shortened and len(exactly.examples[0][0]) == sizes[2]
    none = sft_data.rendered([four], tokenizer, sizes[0] - 2)
    assert none.too_long == 1 and not none.examples
    with pytest.raises(UserError, match="nothing to train on"):
        sft_data.rendered([{"messages": turn}, {"messages": turn[:1]}], tokenizer, 64)


def test_nothing_that_fits_is_a_mistake_with_a_reason(workspace, console):
    make_model(workspace, context=8)
    make_conversations(workspace)
    with pytest.raises(UserError, match="longer than 8 tokens"):
        stage.run(config(), workspace, console)
    with pytest.raises(UserError, match="was made for 8"):
        stage.run(config(context=16), workspace, console)


def test_questions_are_spread_over_the_kinds():
    some = [{"kind": "a", "n": i} for i in range(10)] + [{"kind": "b", "n": i} for i in range(2)]
    found = spread(some, 6)
    assert [(r["kind"], r["n"]) for r in found] == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("a", 3)]
    assert spread(some, 0) == [] and spread([], 5) == []


def test_tools_are_at_hand_where_the_answers_use_them(workspace):
    call = [{"type": "search", "text": "moon"}, {"type": "output", "text": "rock"}, {"type": "text", "text": "Rock."}]
    row = {"messages": [{"role": "user", "content": "Of what?"}, {"role": "assistant", "content": call}]}
    made = make_conversations(workspace, library=True)
    library = sft_data.load([str(made.path)], 0.05, workspace).library
    tools = toolbox([row], library)
    assert tools is not None and "made of rock" in tools("search", "moon")
    assert toolbox(rows(3, 0), library) is None


def test_the_plan(workspace):
    make_model(workspace)
    make_conversations(workspace)
    found = dict(stage.plan(config(), workspace))
    assert found["updates"] == "40 of 8 rows" and found["conversations"].startswith("120 to train on, 30 held out")
    assert {"FLOPs", "memory", "time", "packed", "left out"} <= found.keys()
