"""A tiny chat model that knows nothing, a server that knows what a test says, and a writer without either."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "endpoint"))

from fake_endpoint import FakeEndpoint

from llmctl.console import Console
from llmctl.endpoint import ChatSampling, Conversation, EndpointSettings, Reply
from llmctl.model.config import ModelConfig
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import train_tokenizer
from llmctl.model.transformer import Transformer
from llmctl.synth.asking import Asking


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a chat model of some thousand random weights."""
    tokenizer = train_tokenizer(iter(["What is a whale? It is an animal of the sea. The answer is 85."] * 3), 300)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("student") / "model"
    save_model(path, Transformer(ModelConfig(tokenizer.vocab_size, 1, 32, 2, 2, 16, 64, context=256)), tokenizer)
    return str(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    monkeypatch.setattr("llmctl.endpoint.client._BACKOFF", 0.01)
    made = FakeEndpoint()
    yield made
    made.close()


class Says:
    """A `Writer` that says what `answer(messages, seed)` returns: text, or a whole Reply."""

    batch = 1

    def __init__(self, answer: Callable[[Conversation, int], str | Reply]) -> None:
        self.answer, self.asked = answer, 0

    def who(self) -> dict[str, Any]:
        return {"model": "says"}

    def chat(self, messages: Conversation, sampling: ChatSampling = ChatSampling()) -> str:
        raise NotImplementedError

    def answers(
        self, conversations: Sequence[Conversation], sampling: ChatSampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Reply]]:
        for i, (conversation, seed) in enumerate(zip(conversations, seeds or [], strict=True)):
            self.asked += 1
            found = self.answer(conversation, seed)
            yield i, found if isinstance(found, Reply) else Reply(found, tokens_in=10, tokens_out=2)


@pytest.fixture
def asking(tmp_path: Path) -> Callable[..., Asking]:
    """An Asking around an answering function."""

    def make(answer: Callable[[Conversation, int], str | Reply], **settings: Any) -> Asking:
        (tmp_path / "scratch").mkdir(exist_ok=True)
        return Asking("t", Says(answer), tmp_path / "scratch", EndpointSettings(**settings), Console(quiet=True))

    return make
