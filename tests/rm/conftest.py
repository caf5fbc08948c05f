"""A tiny chat model, and comparisons in a workspace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch

from llmctl.model.config import ModelConfig
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import Transformer
from llmctl.recipe import InputOf, StageSettings
from llmctl.workspace import Artifact, Workspace


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(["say something good, and say it well; a bad answer is no answer at all"] * 3), 300)


class Made(StageSettings):
    """Stands for any stage: what it makes is written by the test."""

    stage: ClassVar[str] = "synth"
    makes: ClassVar[str] = "comparisons"
    parents: Annotated[list[str], InputOf(("model",))] = []


Put = Callable[..., Artifact]


@pytest.fixture
def chat(tmp_path: Path, tokenizer: Tokenizer) -> str:
    """The path of a chat model of some thousand weights."""
    torch.manual_seed(0)
    shape = ModelConfig(tokenizer.vocab_size, 1, 32, 2, 2, 16, 64, context=96)
    save_model(tmp_path / "chat", Transformer(shape), tokenizer)
    return str(tmp_path / "chat")


@pytest.fixture
def put(workspace: Workspace) -> Put:
    """Makes an artifact of comparisons out of rows; without `heldout` it has no held-out part."""

    def put(name: str, train: list[Any], heldout: list[Any] | None = None) -> Artifact:
        with workspace.build(Made(out=name)) as build:
            for split, rows in (("train", train), ("heldout", heldout)):
                if rows is not None:
                    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
                    (build.path / f"{split}.jsonl").write_text(text)
        return build.done()

    return put
