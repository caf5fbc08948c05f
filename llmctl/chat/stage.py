"""The recorded form of chat: each prompt answered once, kept as conversations."""

from __future__ import annotations

import hashlib
from typing import Any

from llmctl.chat.config import ChatConfig
from llmctl.chat.oneshot import answers
from llmctl.chat.save import write_rows
from llmctl.chat.speaker import Speaker, load_speaker, model_source
from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.model.config import ModelConfig
from llmctl.model.folder import read_config
from llmctl.workspace import Artifact, Workspace


def run(config: ChatConfig, workspace: Workspace, console: Console) -> Artifact:
    """Answer `config.prompts`, in one batch."""
    if not config.prompts:
        raise UserError(
            "there are no prompts to answer", "chat.prompts", 'write prompts: ["..."], or use `llmctl chat`'
        )
    with workspace.build(config) as build:
        speaker = load_speaker(workspace, config)
        groups = answers(speaker, config, config.prompts)
        found = [{k: v for k, v in group[0].items() if k != "ids"} for group in groups]
        write_rows(
            build.path / "train.jsonl",
            [_row(config, speaker, p, a) for p, a in zip(config.prompts, found, strict=True)],
        )
        for prompt, given in zip(config.prompts, found, strict=True):
            console.info(f"> {prompt}\n{given['text']}")
        build.figures = {
            "headline": {"label": "answer", "before": None, "after": _short(found[0]["text"]), "unit": ""},
            "answers": [{"prompt": p, **a} for p, a in zip(config.prompts, found, strict=True)],
            "new_tokens": sum(a["tokens"] for a in found),
            "in": _count(len(found), "prompt"),
            "out": _count(len(found), "answer"),
        }
    return build.done()


def plan(config: ChatConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What --dry-run says."""
    source = model_source(workspace, config)
    shape = ModelConfig.from_hf(read_config(source.path), str(source.path / "config.json"))
    return [
        ("model", f"{config.model}: {shape.parameters():,} parameters, context {shape.context:,}"),
        ("prompts", f"{len(config.prompts)}, at most {config.max_new_tokens} new tokens each"),
        ("tools", ", ".join(t for t in ("python" * config.python, "search" * bool(config.search)) if t) or "none"),
    ]


def _row(config: ChatConfig, speaker: Speaker, prompt: str, given: dict[str, Any]) -> dict[str, Any]:
    said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": given["content"]}]
    system = [{"role": "system", "content": config.system}] if config.system and speaker.chats else []
    key = hashlib.sha256(f"{config.model}\0{config.seed}\0{prompt}".encode()).hexdigest()[:16]
    return {"messages": system + said, "kind": "answer" if speaker.chats else "continuation", "id": key}


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
