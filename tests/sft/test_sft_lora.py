"""Fine-tuning with adapters, and of models from elsewhere in the format they know."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from sft_made import little_tokenizer, make_conversations, make_model, rows, write_rows
from test_sft_stage import config
from torch.utils._python_dispatch import TorchDispatchMode

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model import hub
from llmctl.model.chat_format import CHATML, format_of, render, render_prompt
from llmctl.model.config import ModelConfig
from llmctl.model.folder import load_model, save_model
from llmctl.model.lora import add_adapters
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer
from llmctl.pipeline import registry
from llmctl.pipeline.execute import show_plan
from llmctl.sft import stage
from llmctl.train.batch import Batch
from llmctl.train.loss import lm_loss
from llmctl.train.packing import PackedSource

LORA = {"rank": 8, "alpha": 16, "dropout": 0.1}
STEPS = {"steps": 60, "precision": "fp32", "optimizer": {"lr": 0.01}}
ASKED = [{"role": "user", "content": "Please say blue, now number 7."}]


def contrary(path: Path) -> Path:
    """Conversations in which the other word is said."""
    some = rows(120, 5)
    for row in some:
        other = {"red": "blue", "blue": "red"}[row["answer"]]
        row["messages"][1]["content"], row["answer"] = f"It is {other}.", other
    return write_rows(path, some)


def test_adapters_teach_a_model_something_else_and_come_out_merged(workspace, console, tmp_path) -> None:
    make_model(workspace)
    make_conversations(workspace)
    stage.run(config(out="chat", eval_items=0), workspace, console)
    path = contrary(tmp_path / "contrary.jsonl")
    settings = {"model": "chat", "conversations": [str(path)], "heldout_share": 0.2, "train": STEPS}
    made = stage.run(config(out="tuned", lora=LORA, **settings), workspace, console)
    assert made.figures["right_before"] <= 20 and made.figures["right_after"] >= 90
    assert 0 < made.figures["trained_parameters"] < 0.6 * load_model(made.path)[0].config.parameters()
    base = workspace.find("chat", ["model"]).path / "model.safetensors"
    with safe_open(made.path / "model.safetensors", "pt") as f, safe_open(base, "pt") as before:
        names = set(f.keys())
        assert names == set(before.keys())
        same = {n for n in names if torch.equal(f.get_tensor(n), before.get_tensor(n))}
    assert "model.embed_tokens.weight" in same and not any("_proj" in n for n in same)


def test_an_interrupted_run_with_adapters_ends_with_the_same_weights(workspace, console, monkeypatch) -> None:
    make_model(workspace)
    make_conversations(workspace)
    settings = {"lora": LORA, "eval_items": 2, "train": {**STEPS, "steps": 14, "save_every": 3}}
    whole = stage.run(config(out="whole", **settings), workspace, console)
    there = PackedSource.batches

    def dies(self: PackedSource, step: int) -> list:
        if step == 8:
            raise MemoryError
        return there(self, step)

    monkeypatch.setattr(PackedSource, "batches", dies)
    with pytest.raises(MemoryError):
        stage.run(config(out="broken", **settings), workspace, console)
    monkeypatch.setattr(PackedSource, "batches", there)
    resumed = stage.run(config(out="broken", **settings), workspace, console)
    weights = (whole.path / "model.safetensors").read_bytes()
    assert (resumed.path / "model.safetensors").read_bytes() == weights


def test_a_layer_that_is_not_there_is_a_mistake_and_the_plan_counts(workspace, console) -> None:
    make_model(workspace)
    make_conversations(workspace)
    with pytest.raises(UserError, match="no layer 'c_attn'"):
        stage.run(config(lora={"targets": ["c_attn"]}), workspace, console)
    found = dict(stage.plan(config(lora={"rank": 2, "targets": ["q_proj"]}), workspace))
    assert found["adapters"] == f"rank 2; {2 * 2 * (32 + 32):,} parameters" and found["chat format"] == "llmctl"


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_dry_run_shows_the_adapters_settings_where_there_are_any(workspace, capsys, lora) -> None:
    make_model(workspace)
    make_conversations(workspace)
    show_plan(registry.stage("sft"), config(lora=lora), workspace, Console())
    found = capsys.readouterr().err.splitlines()
    shown = [line for line in found if "lora.rank" in line]
    assert any("read as" in line and "messages, " in line for line in found)
    assert any("<|im_sep|>[[" in line and "<|im_end|>]]" in line for line in found)
    assert len(shown) == 1 and ("2" in shown[0]) == (lora is not None)


def published(folder: Path) -> Tokenizer:
    """A ChatML model as others publish it: three special tokens, a template that adds a system message of its own."""
    made = little_tokenizer()
    plain = Tokenizer(dict(made.spec) | {"added_tokens": []}, {})
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    grown = plain.with_specials({t: plain.vocab_size + n for n, t in enumerate(names)})
    template = "<|im_start|>system\nYou are somebody's.<|im_end|>\n" + CHATML.template
    tokenizer = Tokenizer(dict(grown.spec), {"eos_token": "<|im_end|>", "chat_template": template})
    torch.manual_seed(0)
    shape = ModelConfig(tokenizer.vocab_size, 2, 32, 2, 2, 16, 64, 96, family="qwen2")
    save_model(folder, Transformer(shape), tokenizer)
    return tokenizer


@pytest.mark.parametrize("lora", [None, {"rank": 8, "tables": True}])
def test_a_model_of_the_hub_is_trained_in_its_own_format(workspace, console, tmp_path, monkeypatch, lora) -> None:
    from transformers import AutoTokenizer

    tokenizer = published(tmp_path / "hub")
    monkeypatch.setattr(hub, "fetch_model", lambda name, weights=True: {"hf:org/tiny": tmp_path / "hub"}[name])
    make_conversations(workspace)
    made = stage.run(config(model="hf:org/tiny", lora=lora, train={**STEPS, "steps": 80}), workspace, console)
    assert made.figures["chat_format"] == "ChatML"
    model, known = load_model(made.path)
    assert format_of(known) is CHATML and known.specials == tokenizer.specials and known.chats
    prompt = render_prompt(ASKED, known)
    assert prompt == AutoTokenizer.from_pretrained(made.path).apply_chat_template(
        ASKED, add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"], "its system message was not trained, so it is not in the template either"  # fmt: skip
    (sample,) = Engine(model, known, "fp32").generate([prompt], Sampling(12, temperature=0.0))[0]
    assert sample.text == "It is blue." and sample.finish == "stop"
    assert sample.ids[-1] == tokenizer.specials["<|im_end|>"]


def test_tokens_that_had_to_be_added_are_trained_with_adapters(workspace, console, tmp_path) -> None:
    """Their rows in the tables are alike at first: no adapter could tell them apart."""
    made = little_tokenizer()
    bare = Tokenizer({**made.spec, "added_tokens": made.spec["added_tokens"][:1]}, {"eos_token": "<|endoftext|>"})
    torch.manual_seed(0)
    save_model(tmp_path / "bare", Transformer(ModelConfig(bare.vocab_size, 2, 32, 2, 2, 16, 64, 64)), bare)
    make_conversations(workspace)
    tuned = stage.run(config(model=str(tmp_path / "bare"), lora={"rank": 4}, train=STEPS), workspace, console)
    model, known = load_model(tuned.path)
    new = model.embed_tokens.weight[[known.specials["<|im_start|>"], known.specials["<|im_end|>"]]]
    assert not torch.allclose(new[0], new[1], atol=1e-3)
    assert len(render(ASKED, known).ids) > 3


@pytest.mark.parametrize("tables", [False, True])
def test_what_is_frozen_has_no_gradient_and_costs_no_products(tables: bool) -> None:
    """The products of a step, counted by torch itself: one a frozen head for the loss, one for its input's gradient."""
    tok = little_tokenizer()
    torch.manual_seed(0)
    shape = ModelConfig(tok.vocab_size, layers=1, width=16, heads=2, kv_heads=2, head_dim=8, mlp_width=32, context=32)
    model = Transformer(shape)
    add_adapters(model, 2, 4.0, tables=tables)
    ids = torch.randint(0, tok.vocab_size, (2, 16))
    with ProductCount() as count:
        lm_loss(model, Batch(ids, ids, torch.ones(2, 16))).total.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        n for n, p in model.named_parameters() if "lora_" in n or (tables and n == "embed_tokens.weight")
    }
    assert count.found[tok.vocab_size] == (3 if tables else 2)


class ProductCount(TorchDispatchMode):
    """How many matrix products had a side of each size."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
            self.found.update({size for a in args if isinstance(a, torch.Tensor) for size in a.shape})
        return func(*args, **(kwargs or {}))
