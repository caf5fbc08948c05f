"""A model made ready to speak: loaded, with its tools, and known to be a chat model or a base model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llmctl.chat.config import ChatConfig
from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import WRAPS
from llmctl.model.folder import load_model
from llmctl.model.hub import local
from llmctl.model.tokenizer import Tokenizer
from llmctl.tools.search import SearchIndex, read_library
from llmctl.tools.toolbox import Searcher, Toolbox
from llmctl.tools.web import WebSearch
from llmctl.workspace import Artifact, Foreign, Workspace

_CHAT_STAGES = ("sft", "rl")


@dataclass
class Speaker:
    """`chats`: it answers in turns. Otherwise it continues text. `tools` is None where it cannot call any."""

    name: str
    engine: Engine
    tokenizer: Tokenizer
    context: int
    chats: bool
    tools: Toolbox | None
    digest: str = ""
    """Of the model's files, for the log."""


def load_speaker(workspace: Workspace, config: ChatConfig) -> Speaker:
    """The model of `config` with its tools. UserError where there is none, or it does not write text."""
    source = model_source(workspace, config)
    model, tokenizer = load_model(source.path)
    if torch.cuda.is_available():
        model = model.to("cuda")
    chats = is_chat_model(source, tokenizer.chats)
    return Speaker(
        name=source.name or source.path.name,
        engine=Engine(model, tokenizer, config.precision),
        tokenizer=tokenizer,
        context=model.config.context,
        chats=chats,
        tools=load_tools(workspace, config) if chats and WRAPS["python"][0] in tokenizer.specials else None,
        digest=source.digest,
    )


def model_source(workspace: Workspace, config: ChatConfig) -> Artifact | Foreign:
    """Where the model lies."""
    source = workspace.resolve(config.model, ["model"], files=True)
    return replace(source, path=local(source.path)) if isinstance(source, Foreign) else source


def is_chat_model(source: Artifact | Foreign, has_chat_tokens: bool) -> bool:
    """Whether the model was trained to hold a conversation.

    Our own say so by the stage that made them. A folder from elsewhere is taken for a chat model if it has a chat
    template and the tokens of a format that is rendered here: ours, ChatML's or Llama 3's. Its `config.json` may say
    otherwise, `"chat": false`.
    """
    if isinstance(source, Artifact):
        return source.manifest.get("stage") in _CHAT_STAGES and has_chat_tokens
    marked = read_config(source.path).get("chat")
    return has_chat_tokens and (bool(marked) if marked is not None else _has_template(source.path))


def load_tools(workspace: Workspace, config: ChatConfig) -> Toolbox | None:
    """The tools that the settings switch on. Without a library, the web endpoint that the environment names."""
    search: Searcher | None = None
    if config.search_url or not config.search:
        search = WebSearch.from_environment(config.search_url)
    else:
        source = workspace.resolve(config.search, ["conversations", "corpus"], files=True)
        search = SearchIndex.build(read_library(source))
    return Toolbox(search, config.python) if search is not None or config.python else None


def sampling_of(config: ChatConfig, seed: int | None = None) -> Sampling:
    """The sampling settings of `config`, with its seed unless another is given."""
    return Sampling(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
        stop_strings=tuple(config.stop),
        seed=config.seed if seed is None else seed,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`; empty where there is none that can be read."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        return "chat_template" in json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
