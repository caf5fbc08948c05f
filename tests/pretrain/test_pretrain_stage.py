"""Pretraining from tokens to a model folder."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrain_made import MadeUp, data_of, make_tokens

from llmctl.errors import UserError
from llmctl.formats.tokens import TokenReader
from llmctl.model.config import dial
from llmctl.model.folder import load_model
from llmctl.pretrain import stage
from llmctl.pretrain.config import PretrainConfig, PretrainOptimizerSettings
from llmctl.pretrain.rules import Derived, derive
from llmctl.pretrain.windows import Windows, restarted
from llmctl.train import estimate
from llmctl.train.settings import TrainSettings


def config(**changes: Any) -> PretrainConfig:
    small = {
        "tokens": "little",
        "depth": 2,
        "model": {"width": 32, "head_dim": 16},
        "context": 32,
        "batch_tokens": 256,
        "train": {"steps": 40, "save_every": 5},
        "eval_every": 20,
        "samples": {"every": 20, "new_tokens": 5},
    }
    return PretrainConfig.model_validate({**small, **changes})


def test_a_model_learns_and_says_so(workspace, console):
    tokenizer = make_tokens(workspace)
    made = stage.run(config(), workspace, console)
    head = made.figures["headline"]
    assert head["label"] == "bits per byte" and head["after"] < 0.5 * head["before"]
    # A model that knows nothing says ln(V) nats a token.
    val = TokenReader(workspace.find("little", ["tokens"]).path, "val")
    assert head["before"] == pytest.approx(val.tokens * math.log(tokenizer.vocab_size, 2) / val.bytes, rel=0.1)
    model, its = load_model(made.path)
    assert its.digest == tokenizer.digest and model.config.layers == 2
    rows = made.metrics()
    assert [r["step"] for r in rows if "samples" in r] == [0, 20, 40]
    assert all(len(r["samples"]) == 3 for r in rows if "samples" in r)
    assert len([r for r in rows if "loss" in r]) == 40
    assert made.figures["tokens"] == 40 * 256 and (made.path / "README.md").read_text().count("bits a byte") == 1


class PowerCut(Exception):
    pass


def test_an_interrupted_run_ends_with_the_same_files(workspace, console, monkeypatch):
    make_tokens(workspace)
    whole = stage.run(config(out="whole"), workspace, console)
    there = Windows.batches

    def dies(self: Windows, step: int) -> list:
        if step == 17:
            raise PowerCut
        return there(self, step)

    monkeypatch.setattr(Windows, "batches", dies)
    with pytest.raises(PowerCut):
        stage.run(config(out="broken"), workspace, console)
    monkeypatch.setattr(Windows, "batches", there)
    resumed = stage.run(config(out="broken"), workspace, console)
    a, b = data_of(whole), data_of(resumed)
    assert a.pop("README.md") and b.pop("README.md")  # it names the model
    assert a == b
    assert [r["step"] for r in resumed.metrics() if "loss" in r] == list(range(1, 41))
    assert resumed.figures["bits_per_byte_before"] == whole.figures["bits_per_byte_before"]


def test_going_on_from_a_model(workspace, console):
    make_tokens(workspace)
    first = stage.run(config(out="first"), workspace, console)
    second = stage.run(config(out="second", init="first", train={"steps": 10}), workspace, console)
    assert second.figures["bits_per_byte_before"] == pytest.approx(first.figures["bits_per_byte_after"], abs=2e-3)
    assert [i["name"] for i in second.manifest["inputs"]] == ["little", "first"]


def test_a_model_with_another_tokenizer_is_refused(workspace, console):
    make_tokens(workspace)
    stage.run(config(out="first", train={"steps": 1}), workspace, console)
    make_tokens(workspace, "other", documents=150)
    with pytest.raises(UserError, match="different tokenizers"):
        stage.run(config(tokens="other", init="first"), workspace, console)
    with pytest.raises(UserError, match="was made for 32"):
        stage.run(config(init="first", context=64), workspace, console)


def test_the_budget(workspace):
    make_tokens(workspace)
    free = {"steps": 0}
    by_epochs = stage.job(config(train=free, max_epochs=2), workspace)
    assert by_epochs.tokens == pytest.approx(2 * by_epochs.training.tokens, abs=256)
    by_size = stage.job(config(train=free, tokens_per_parameter=0.05), workspace)
    assert by_size.tokens == pytest.approx(0.05 * by_size.shape.parameters(), abs=256)
    assert stage.job(config(), workspace).settings.steps == 40


def test_the_plan_says_what_it_will_cost(workspace):
    make_tokens(workspace)
    rows = dict(stage.plan(config(price=24), workspace))
    assert rows["updates"] == "40" and rows["batch"] == "256 tokens (8 rows of 32): given"
    assert {"model", "shape", "parameters", "tokens", "FLOPs", "memory", "speed", "time"} <= rows.keys()
    assert rows["cost"].endswith("at 24 an hour") and "cost" not in dict(stage.plan(config(), workspace))


def test_the_dial_sets_batch_and_rates_by_its_rules(workspace):
    make_tokens(workspace)
    shape = stage.job(config(), workspace).shape
    free = PretrainConfig.model_validate({"tokens": "little", "context": 64})

    def at(tokens: float, **changes: Any) -> Derived:
        budget = {"tokens_per_parameter": tokens / shape.parameters(), "max_epochs": 1e9}
        return derive(free.model_copy(update={**budget, **changes}), shape, 1000)

    # A million tokens in batches of 4,096; a hundred times as many in ten times as large ones, to a power of two.
    assert at(1e6).rows * 64 == 4096 and at(1e6).steps == round(1e6 / 4096)
    assert at(1e8).rows * 64 == 32768 and at(1e10).rows * 64 == 524288
    assert at(1e8, batch_tokens=640).rows == 10
    assert at(1e6).optimizer.matrix_lr == 0.02
    assert at(1e6).optimizer.lr == pytest.approx(0.02 * (256 / shape.width) ** 0.5)
    # 1 - 0.05 at half a million tokens an update, by the root of it below; but in few updates no longer than a fifth.
    assert at(1e10).optimizer.betas == (0.9, 0.95) and at(1e8).optimizer.betas == (0.9, 0.9875)
    assert at(1e6).steps == 244 and at(1e6).optimizer.betas == (0.9, round(1 - 5 / 244, 4))
    assert at(1e4).optimizer.betas == (0.9, 0.95)
    given = PretrainOptimizerSettings(lr=0.5, matrix_lr=0.25, betas=(0.8, 0.9))
    assert at(1e6, train=free.train.model_copy(update={"optimizer": given})).optimizer.betas == (0.8, 0.9)
    train = free.train.model_copy(update={"optimizer": given})
    assert (at(1e6, train=train).optimizer.lr, at(1e6, train=train).optimizer.matrix_lr) == (0.5, 0.25)
    wide = replace(shape, width=1024, heads=16, kv_heads=16, head_dim=64)
    assert derive(free, wide, 10**9).optimizer.lr == pytest.approx(0.01)
    parted = derive(free, replace(wide, tie_embeddings=False), 10**9)
    assert (parted.optimizer.embedding_lr, parted.optimizer.head_lr) == pytest.approx((0.15, 0.005))
    assert "embedding 0.15" in dict(parted.reasons)["learning rates"]
    given = train.model_copy(update={"optimizer": PretrainOptimizerSettings(embedding_lr=0.1, head_lr=0.2)})
    parted = derive(free.model_copy(update={"train": given}), replace(wide, tie_embeddings=False), 10**9)
    assert (parted.optimizer.embedding_lr, parted.optimizer.head_lr) == (0.1, 0.2)


@pytest.mark.parametrize("family", ["qwen2", "llama", "nanochat", "gpt2"])
def test_every_family_learns(workspace, console, family):
    make_tokens(workspace)
    shape = {"width": 32, "head_dim": 16, "family": family}
    made = stage.run(config(model=shape, train={"steps": 20, "compile": False}), workspace, console)
    assert made.figures["headline"]["after"] < 0.8 * made.figures["headline"]["before"]
    assert load_model(made.path)[0].config.family == family


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"tokens": "litle"}, "did you mean 'little'"),
        ({"context": 100_000}, "one row"),
        ({"model": {"width": 64, "head_dim": 16, "kv_heads": 3}}, "multiple of kv_heads"),
    ],
)
def test_mistakes_are_one_line(workspace, console, changes, what):
    make_tokens(workspace)
    with pytest.raises(UserError, match=what):
        stage.run(config(**changes), workspace, console)
    assert not workspace.unfinished()


def windows(workspace: Any, **changes: Any) -> Windows:
    reader = TokenReader(workspace.find("little", ["tokens"]).path, "train")
    return Windows(reader, **{"context": 32, "rows": 8, "at_once": 8, "seed": 0, **changes})


def test_windows_cover_an_epoch_without_repeating(workspace):
    make_tokens(workspace)
    w = windows(workspace, rows=1)
    n = w.order.n
    starts = sorted(w._start(0, i) for i in range(n))
    drawn = sorted(w._start(e, i) for e, i in w.order.take(0, n))
    assert drawn == starts and np.diff(drawn).min() == 32
    assert starts[0] <= 32 and starts[-1] + 32 < w.reader.tokens <= starts[-1] + 3 * 32
    again = sorted(w._start(e, i) for e, i in w.order.take(n, n))
    assert again != starts  # the cuts are elsewhere
    batch = w.batches(5)[0]
    assert torch.equal(batch.ids[:, 1:], batch.targets[:, :-1]) and batch.trained is None
    assert torch.equal(windows(workspace, rows=1).batches(5)[0].ids, batch.ids)
    assert [len(b.ids) for b in windows(workspace, at_once=3).batches(0)] == [3, 3, 2]


def test_masked_documents(workspace):
    make_tokens(workspace)
    batch = windows(workspace, mask_documents=True).batches(0)[0]
    eos = load_eos(workspace.find("little", ["tokens"]).path)
    assert batch.segments is not None and batch.positions is not None
    for ids, segments, positions in zip(batch.ids, batch.segments, batch.positions, strict=True):
        assert torch.equal(segments.diff() == 1, ids[:-1] == eos)
        assert (positions[1:][ids[:-1] == eos] == 0).all() and positions[0] == 0


def load_eos(path: Path) -> int:
    return int(TokenReader(path, "train").meta["eos_id"])


def test_positions_restart():
    assert restarted(np.array([[4, 4, 4, 5, 5, 7]])).tolist() == [[0, 1, 2, 0, 1, 0]]


def test_a_text_shorter_than_two_rows_is_enough(workspace):
    make_tokens(workspace, documents=2)
    reader = TokenReader(workspace.find("little", ["tokens"]).path, "train")
    w = Windows(reader, reader.tokens - 1, 2, 2, 0)
    assert w.batches(0)[0].ids.shape == (2, reader.tokens - 1)


def test_no_held_out_text_is_no_error(workspace, console):
    make_tokens(workspace, val=0)
    made = stage.run(config(train={"steps": 2}), workspace, console)
    assert made.figures["headline"]["after"] is None
    assert MadeUp.makes == "tokens"


def test_a_plan_for_several_processes_is_of_each_one_and_shorter(workspace, console, monkeypatch):
    make_tokens(workspace)
    monkeypatch.setattr(estimate, "seconds_a_token", lambda *_: (0.1, "as said"))
    alone = dict(stage.plan(config(price=24), workspace))
    monkeypatch.setenv("WORLD_SIZE", "4")
    found = dict(stage.plan(config(price=24), workspace))
    assert alone["time"] == "about 17.1 minutes" and found["time"] == "about 4.3 minutes"  # 40 x 256 tokens
    assert found["speed"] == "4 x 10 tokens/s (as said)" and "0.0" not in found["cost"]
    assert found["memory"].endswith("in each of 4 processes")
    large = {"model": {"width": 512}, "train": {"steps": 40}}
    parted = large | {"train": {"steps": 40, "parallel": "fsdp"}}
    plans = [dict(stage.plan(config(**given), workspace))["memory"] for given in (large, parted)]
    whole, part = (int(memory.split()[1].replace(",", "")) for memory in plans)
    assert part < whole


def test_under_fsdp_a_process_needs_its_part_of_what_is_kept():
    shape = dial(32, 32768, 2048)
    adamw = TrainSettings.model_validate({"optimizer": {"name": "adamw"}, "precision": "bf16"})
    no_rows = [estimate.memory(shape, 0, 2048, adamw, parts) for parts in (1, 2, 8)]
    assert no_rows[0] == 16 * shape.parameters()  # weight, gradient, two moments in float32
    # Between steps the weights come together once, 4 bytes each; that is more here than what a step fetches.
    assert no_rows[1:] == [(16 // parts + 4) * shape.parameters() for parts in (2, 8)]
    assert estimate.memory(shape, 64, 2048, adamw, 8) > no_rows[2] > 0
