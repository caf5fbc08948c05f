"""A little model and conversations for it, made without the stages that make them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, ClassVar

import torch

from llmctl.model.config import ModelConfig
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import Transformer
from llmctl.recipe import StageSettings
from llmctl.workspace import Artifact, Workspace


class MadeUp(StageSettings):
    """Settings of a stage that only the tests have."""

    stage: ClassVar[str] = "synth"
    makes: ClassVar[str] = "conversations"
    out: str = "made"


def little_tokenizer() -> Tokenizer:
    """It knows the words of the rows below."""
    texts = [m["content"] for row in rows(300, 0) for m in row["messages"]] + ["user", "assistant", "system"] * 20
    return train_tokenizer(texts, 320)


def make_model(workspace: Workspace, name: str = "base", context: int = 64) -> Tokenizer:
    """A model artifact with fresh weights; its tokenizer."""
    tokenizer = little_tokenizer()
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 2, "head_dim": 16, "mlp_width": 64}
    model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, context=context, **shape))
    with workspace.build(MadeUp(out=name), "model") as build:
        save_model(build.path, model, tokenizer)
    return tokenizer


def rows(n: int, seed: int, checked: bool = True) -> list[dict[str, Any]]:
    """Questions that a little model can learn to answer: say which of two words was asked for."""
    rng, found = random.Random(seed), []
    for _ in range(n):
        word = rng.choice(["red", "blue"])
        question = f"Please say {word}, {rng.choice(['now', 'then'])} number {rng.randint(0, 999)}."
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": f"It is {word}."}]
        row: dict[str, Any] = {"messages": messages, "kind": word}
        found.append({**row, "answer": word, "check": "contains"} if checked else row)
    return found


def write_rows(path: Path, some: list[dict[str, Any]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    return path


def make_conversations(workspace: Workspace, name: str = "made", n: int = 120, library: bool = False) -> Artifact:
    """A conversations artifact with a held-out part."""
    with workspace.build(MadeUp(out=name)) as build:
        write_rows(build.path / "train.jsonl", rows(n, 1))
        write_rows(build.path / "heldout.jsonl", rows(30, 2))
        if library:
            write_rows(build.path / "library.jsonl", [{"title": "Moon", "text": "The moon is made of rock."}])
    return build.done()
