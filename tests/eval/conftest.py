"""Tiny artifacts for eval: models of a few thousand weights, made the way the stages make them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch

from llmctl.formats.tokens import TokenWriter, write_meta
from llmctl.model.config import ModelConfig
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import RewardModel, Transformer
from llmctl.recipe import InputOf, StageSettings
from llmctl.verify import problems
from llmctl.workspace import Artifact, Workspace

TEXT = "What is 2 + 3? The answer is 5. I don't know who that is. A small town is famous for its cheese and bread. "


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(iter([TEXT * 3]), 320)


def tiny(vocab_size: int, seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    shape = ModelConfig(vocab_size, layers=1, width=32, heads=2, kv_heads=2, head_dim=16, mlp_width=64, context=256)
    return Transformer(shape)


class Made(StageSettings):
    """Stands for any stage: what it makes is written by the test."""

    stage: ClassVar[str] = "sft"
    makes: ClassVar[str] = "model"
    parents: Annotated[list[str], InputOf(("model", "conversations", "tokens", "comparisons", "corpus"))] = []
    note: str = ""


class Shelf:
    """Puts artifacts into a workspace."""

    def __init__(self, workspace: Workspace, tokenizer: Tokenizer) -> None:
        self.workspace, self.tokenizer = workspace, tokenizer

    def put(
        self, kind: str, name: str, write: Callable[[Path], None], stage: str = "sft", parents: list[str] | None = None
    ) -> Artifact:
        class Stage(Made):
            pass

        Stage.stage, Stage.makes = stage, kind
        with self.workspace.build(Stage(out=name, parents=parents or [])) as build:
            write(build.path)
            if kind == "model":
                build.metrics.log(step=1, loss=2.0)
                build.metrics.log(step=2, loss=1.0)
        return build.done()

    def model(self, name: str, stage: str = "sft", parents: list[str] | None = None, seed: int = 0) -> Artifact:
        model = tiny(self.tokenizer.vocab_size, seed)
        return self.put("model", name, lambda p: save_model(p, model, self.tokenizer), stage, parents)

    def reward(self, name: str, parents: list[str]) -> Artifact:
        model = RewardModel(tiny(self.tokenizer.vocab_size))
        return self.put("model", name, lambda p: save_model(p, model, self.tokenizer), "rm", parents)

    def conversations(self, name: str, kinds: tuple[str, ...] = ("sums", "names"), n: int = 12) -> Artifact:
        rows = [i.row() for k in kinds for i in problems(k, n, 0, heldout=True)]
        return self.rows("conversations", name, rows)

    def rows(self, kind: str, name: str, rows: list[dict[str, Any]]) -> Artifact:
        text = "".join(json.dumps(r) + "\n" for r in rows)

        def write(path: Path) -> None:
            (path / "train.jsonl").write_text(text)
            (path / "heldout.jsonl").write_text(text)

        return self.put(kind, name, write, "synth")

    def tokens(self, name: str, tokenizer: Tokenizer | None = None) -> Artifact:
        mine = tokenizer or self.tokenizer

        def write(path: Path) -> None:
            writers = [TokenWriter(path, split, "uint16", 1 << 20) for split in ("train", "val")]
            for writer in writers:
                for _ in range(5):
                    writer.add([*mine.encode(TEXT), mine.eos_id], len(TEXT))
                writer.close()
            write_meta(path, writers, tokenizer=mine.digest)
            mine.save(path / "tokenizer")

        return self.put("tokens", name, write, "tokenize")


@pytest.fixture
def shelf(workspace: Workspace, tokenizer: Tokenizer) -> Shelf:
    return Shelf(workspace, tokenizer)
