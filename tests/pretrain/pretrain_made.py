"""Tokens to pretrain on, made without the stage that makes them."""

from __future__ import annotations

import random
from typing import ClassVar

from llmctl.formats.tokens import TokenWriter, write_meta
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.recipe import StageSettings
from llmctl.workspace import Artifact, Workspace


class MadeUp(StageSettings):
    """Settings of a stage that only the tests have."""

    stage: ClassVar[str] = "tokenize"
    makes: ClassVar[str] = "tokens"
    out: str = "little"


def sentences(n: int, seed: int) -> list[str]:
    """Documents with something to learn in them."""
    rng = random.Random(seed)
    who, does, what = ["The cat", "A dog", "The old owl"], ["sees", "eats", "likes"], ["a fish", "the moon", "cheese"]
    return [
        " ".join(f"{rng.choice(who)} {rng.choice(does)} {rng.choice(what)}." for _ in range(rng.randint(2, 9)))
        for _ in range(n)
    ]


def make_tokens(workspace: Workspace, name: str = "little", documents: int = 200, val: int = 20) -> Tokenizer:
    """A tokens artifact `name`; its tokenizer."""
    texts = sentences(documents + val, seed=1)
    tokenizer = train_tokenizer(texts, 300)
    with workspace.build(MadeUp(out=name)) as build:
        writers = []
        for split, part in (("train", texts[:documents]), ("val", texts[documents:])):
            writer = TokenWriter(build.path, split, "uint16", 3000)
            for text in part:
                writer.add([*tokenizer.encode(text), tokenizer.eos_id], len(text.encode()))
            writer.close()
            writers.append(writer)
        write_meta(build.path, writers, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id)
        tokenizer.save(build.path / "tokenizer")
    return tokenizer


def data_of(artifact: Artifact) -> dict[str, str]:
    """The SHA-256 of every data file."""
    return {f["path"]: f["sha256"] for f in artifact.manifest["files"] if f["path"] != "metrics.jsonl"}
