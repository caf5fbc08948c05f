"""One answer, or several to the same question, from the shell: text in, text out."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Any

from llmctl.chat.config import ChatConfig
from llmctl.chat.log import Log, Turn
from llmctl.chat.session import Session
from llmctl.chat.speaker import Speaker, load_speaker, sampling_of
from llmctl.chat.turn import content_of, words_of
from llmctl.errors import UserError
from llmctl.workspace import Workspace


def answer(
    workspace: Workspace, config: ChatConfig, prompt: str, n: int = 1, seed: int | None = None
) -> list[dict[str, Any]]:
    """`n` answers to `prompt`: {"text", "content" (with tool calls), "finish", "tokens"}, equal for equal seeds."""
    speaker = load_speaker(workspace, config)
    found = answers(speaker, config, [prompt], n, seed)[0]
    if config.log:
        _note(workspace, config, speaker, prompt, found, seed)
    return [{k: v for k, v in a.items() if k != "ids"} for a in found]


def answers(
    speaker: Speaker, config: ChatConfig, prompts: list[str], n: int = 1, seed: int | None = None
) -> list[list[dict[str, Any]]]:
    """`n` answers to each of `prompts`, each in a conversation of its own, as `answer` gives them, with their ids."""
    sampling = sampling_of(config, seed)
    rendered = [_prompt(speaker, config, prompt) for prompt in prompts]
    samples = speaker.engine.generate(rendered, sampling, n, speaker.tools, config.batch_size)
    found = []
    for group in samples:
        cut = [s.text if sampling.stop_strings else None for s in group]
        contents = [
            content_of(s.ids, speaker.tokenizer, c) if speaker.chats else s.text
            for s, c in zip(group, cut, strict=True)
        ]
        found.append(
            [
                {
                    "text": words_of(c) if speaker.chats else s.text,
                    "content": c,
                    "finish": s.finish,
                    "tokens": len(s.ids),
                    "ids": s.ids,
                }
                for s, c in zip(group, contents, strict=True)
            ]
        )
    return found


def _prompt(speaker: Speaker, config: ChatConfig, prompt: str) -> list[int]:
    return _session(speaker, config, prompt).prompt()


def _session(speaker: Speaker, config: ChatConfig, prompt: str) -> Session:
    session = Session(speaker, sampling_of(config), config.system)
    if speaker.chats:
        if not prompt.strip():
            raise UserError("there is nothing to answer", fix='give a question: -p "..."')
        session.messages = [{"role": "user", "content": prompt.strip()}]
    else:
        session.text = prompt.rstrip("\n")
    return session


def _note(
    workspace: Workspace,
    config: ChatConfig,
    speaker: Speaker,
    prompt: str,
    found: list[dict[str, Any]],
    seed: int | None,
) -> None:
    """Into the log. The answer is worth more than its record: where that cannot be kept, nothing is said."""
    with suppress(UserError, sqlite3.Error):
        log = Log(workspace)
        try:
            sampling = sampling_of(config, seed)
            for sample, a in enumerate(found):
                session = _session(speaker, config, prompt)
                sent, tools = session.prompt(), speaker.tools is not None
                session.take(Turn(sent, sampling, sample, a["ids"], a["content"], a["finish"], tools))
                assert session.made is not None
                log.add(log.begin("once", speaker), speaker, session.made, session.standing())
        finally:
            log.close()
