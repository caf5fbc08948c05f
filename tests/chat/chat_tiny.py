"""A tiny model in a workspace, and a stand-in engine that says what a test wants it to say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from llmctl.chat.speaker import Speaker
from llmctl.generate.engine import Piece
from llmctl.model.chat_format import render
from llmctl.model.config import ModelConfig
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import RewardModel, Transformer
from llmctl.recipe import StageSettings
from llmctl.workspace import Artifact, Workspace


class Sft(StageSettings):
    stage: ClassVar[str] = "sft"
    makes: ClassVar[str] = "model"


class Pretrain(StageSettings):
    stage: ClassVar[str] = "pretrain"
    makes: ClassVar[str] = "model"


def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(["What is 12 + 34? The answer is 46. Hello, who are you? assistant user"] * 3), 300)


def tiny(reward: bool = False, context: int = 96) -> tuple[Any, Tokenizer]:
    tok = tokenizer()
    torch.manual_seed(0)
    model = Transformer(
        ModelConfig(tok.vocab_size, layers=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp_width=64, context=context)
    )
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.normal_(0, 2 * p.shape[1] ** -0.5)
    return (RewardModel(model) if reward else model), tok


def put_model(
    workspace: Workspace, name: str, stage: type[StageSettings] = Sft, reward: bool = False, context: int = 96
) -> Artifact:
    with workspace.build(stage(out=name)) as build:
        save_model(build.path, *tiny(reward, context))
    return build.done()


class Parrot:
    """An engine that says the next of its replies, each the content of a message, token by token."""

    def __init__(self, tokenizer: Tokenizer, replies: list[Any], stop_at: int | None = None) -> None:
        self.tokenizer, self.replies, self.stop_at = tokenizer, list(replies), stop_at
        self.prompts: list[list[int]] = []
        self.dtype = torch.float32

    def pieces(self, prompt: list[int], sampling: Any, tools: Any = None, sample: int = 0) -> Iterator[Piece]:
        self.prompts.append(prompt)
        head = render([{"role": "assistant", "content": ""}], self.tokenizer).ids[:-1]
        said = render([{"role": "assistant", "content": self.replies.pop(0)}], self.tokenizer)
        for n, (i, trained) in enumerate(zip(said.ids, said.mask, strict=True)):
            if n == self.stop_at:
                raise KeyboardInterrupt
            if n >= len(head):
                end = i == self.tokenizer.id_of("<|im_end|>")
                yield Piece(i, not trained, 0.0, "" if end else self.tokenizer.decode([i]))


def speaker(replies: list[Any], chats: bool = True, context: int = 500, stop_at: int | None = None) -> Speaker:
    tok = tokenizer()
    return Speaker("tiny", Parrot(tok, replies, stop_at), tok, context, chats, None)  # type: ignore[arg-type]
