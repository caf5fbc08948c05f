"""A workspace model as a `Writer`: the shared engine, asked in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from llmctl.endpoint.writer import ChatSampling, Conversation, Reply, said, seeds_of
from llmctl.errors import UserError
from llmctl.generate.engine import Engine, Sample
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import render_prompt
from llmctl.model.folder import load_model
from llmctl.workspace import Workspace


class LocalWriter:
    """`engine` answers, `batch` conversations at a time.

    What it writes depends on the seeds and on what shares a batch, and on nothing else: the same list gives the same
    replies, also when its first batches are left out.
    """

    batch = 64

    def __init__(self, engine: Engine, name: str, digest: str = "") -> None:
        self.engine, self.name, self.digest = engine, name, digest

    @classmethod
    def load(cls, workspace: Workspace, value: str, precision: str = "auto") -> LocalWriter:
        """The model that `value` names: an artifact or a folder. UserError where it holds no conversations."""
        source = workspace.resolve(value, ["model"], files=True)
        model, tokenizer = load_model(source.path)
        if not tokenizer.chats:
            raise UserError(f"{value!r} does not know the chat format", fix="give a chat model (llmctl sft)")
        model = model.to("cuda") if torch.cuda.is_available() else model
        return cls(Engine(model, tokenizer, precision), source.name or str(source.path), source.digest)

    def who(self) -> dict[str, Any]:
        """The model's name and the digest of its weights."""
        return {"model": self.name, "digest": self.digest}

    def chat(self, messages: Conversation, sampling: ChatSampling = ChatSampling()) -> str:
        """The reply to one conversation. UserError where it leaves no room for one."""
        return said(next(self.answers([messages], sampling))[1], self.name)

    def answers(
        self,
        conversations: Sequence[Conversation],
        sampling: ChatSampling = ChatSampling(),
        seeds: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Reply]]:
        """(place, reply), batch by batch."""
        each = seeds_of(conversations, sampling, seeds)
        for at in range(0, len(conversations), self.batch):
            part = conversations[at : at + self.batch]
            prompts = [render_prompt(c, self.engine.tokenizer) for c in part]
            how = _sampling(sampling, each[at : at + self.batch])
            found = self.engine.generate(prompts, how, batch_size=self.batch)
            yield from ((at + i, _reply(p, many[0])) for i, (p, many) in enumerate(zip(prompts, found, strict=True)))


def _sampling(sampling: ChatSampling, seeds: Sequence[int]) -> Sampling:
    """The engine has one seed a batch, and its rows differ by their place in it: all the rows' seeds make that one."""
    one = int.from_bytes(hashlib.sha256(repr(list(seeds)).encode()).digest()[:8], "big") >> 1
    return Sampling(
        max_new_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        stop_strings=tuple(sampling.stop),
        seed=one,
    )


def _reply(prompt: list[int], sample: Sample) -> Reply:
    if not sample.ids:
        return Reply.failed(f"the question fills the model's context ({len(prompt)} tokens)")
    return Reply(sample.text, sample.finish, "", len(prompt), len(sample.ids))
