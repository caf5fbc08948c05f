"""What a maker of data, or a judge, asks of a model: one protocol, so that neither cares where the model runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmctl.errors import UserError

Conversation = Sequence[Mapping[str, Any]]
"""Messages `{"role", "content"}`, the last one the user's."""


@dataclass(frozen=True)
class ChatSampling:
    """How a reply is sampled, in the words of the OpenAI protocol."""

    max_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """What came back. `why` is empty where a reply came; otherwise it says why there is none, and `text` is empty."""

    text: str
    finish: str = "stop"
    """"stop": it ended by itself. "length": it was cut at `max_tokens`. "refused": there is none, and never will be.
    "error": there is none this time."""
    reasoning: str = ""
    """What a reasoning model thought, where its server hands that over apart from the text."""
    tokens_in: int = 0
    tokens_out: int = 0
    why: str = ""

    @classmethod
    def failed(cls, why: str, lasting: bool = True) -> Reply:
        """No reply, and why."""
        return cls("", "refused" if lasting else "error", why=why)


class Writer(Protocol):
    """A model that answers conversations: `Endpoint`, or `LocalWriter`."""

    batch: int
    """How many conversations are answered as one. A reply may depend on the others of its batch (rounding), so whoever
    takes up broken work again asks for whole batches, cut from the same list."""

    def who(self) -> dict[str, Any]:
        """Who writes, for a manifest: a model's name and digest, or an endpoint's address and its model's name."""
        ...

    def chat(self, messages: Conversation, sampling: ChatSampling = ...) -> str:
        """The reply to one conversation. UserError where none comes."""
        ...

    def answers(
        self, conversations: Sequence[Conversation], sampling: ChatSampling = ..., seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """(place in `conversations`, reply) as the replies come, in any order.

        `seeds` is one seed a conversation; without it, `sampling.seed` and those after it. A conversation without a
        reply has its `why`; UserError where going on would be of no use (a wrong key, nobody there).
        """
        ...


def seeds_of(conversations: Sequence[Conversation], sampling: ChatSampling, seeds: Sequence[int] | None) -> list[int]:
    """One seed a conversation."""
    assert seeds is None or len(seeds) == len(conversations), "as many seeds as conversations"
    return list(seeds) if seeds is not None else [sampling.seed + i for i in range(len(conversations))]


def said(reply: Reply, who: str) -> str:
    """The text of a reply that has to be there."""
    if reply.why:
        raise UserError(f"no reply: {reply.why}", who)
    return reply.text
