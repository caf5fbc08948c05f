"""What the models of an arena are asked: prompts of a file, or of conversations, with their known answers if they have.

Any row that asks something will do: {"messages": [...]}, of which the last answer is left out, or {"prompt": ...}.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.formats.json_rows import Skipped, read_rows
from llmctl.workspace import Artifact, Foreign, Workspace
from llmctl.workspace.files import sha256_json

Message = dict[str, Any]
_ASKING = ("prompt", "instruction", "question")


@dataclass(frozen=True)
class Prompt:
    """One thing to answer. `row` is where it comes from, with an `answer` and a `check` where they are known."""

    id: str
    messages: list[Message]
    row: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """What sort of prompt it is."""
        return str(self.row.get("kind") or "prompts")


def prompts_of(config: EvalConfig, workspace: Workspace, inherited: list[Artifact]) -> list[Prompt]:
    """`items` prompts, chosen by a hash, from `conversations`, else from what the models' lineage held out."""
    given: list[Artifact | Foreign] = [workspace.resolve(c, ("conversations",), True) for c in config.conversations]
    sources = given or [a for a in inherited if "heldout.jsonl" in set(a.files())]
    found: dict[str, Prompt] = {}
    for source in sources:
        for where, row in _rows(source):
            prompt = _prompt(row, where)
            found.setdefault(prompt.id, prompt)
    if config.tasks:
        found = {p.id: p for p in found.values() if p.kind in config.tasks}
    if not found:
        raise UserError(
            "there is nothing to ask the models",
            "arena",
            "give prompts: --prompts FILE, one a line, or a conversations artifact"
            + (f" with a kind among {', '.join(config.tasks)}" if config.tasks else ""),
        )
    return sorted(found.values(), key=lambda p: hashlib.sha256(f"{config.seed}/{p.id}".encode()).digest())[
        : config.items
    ]


def _rows(source: Artifact | Foreign) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, row) of an artifact's held-out part, or of a file: text, a prompt a line, or JSON."""
    if isinstance(source, Artifact):
        held = "heldout.jsonl" if "heldout.jsonl" in set(source.files()) else "train.jsonl"
        path = source.file(held)
    else:
        path = source.path
    if path.is_file() and path.suffix == ".txt":
        yield from _lines(path)
        return
    for row in read_rows(path):
        if isinstance(row, Skipped):
            raise UserError(row.why, f"{row.file}:{row.line}", "mend the line")
        yield f"{path}:{row.line}", row.value


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise UserError("it is not UTF-8 text", str(path)) from e
    for i, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"{path}:{i}", {"prompt": line.strip()}


def _prompt(row: Mapping[str, Any], where: str) -> Prompt:
    messages = row.get("messages")
    if not isinstance(messages, list):
        asked = next((row[k] for k in _ASKING if isinstance(row.get(k), (str, list))), None)
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        messages = messages[:-1] if messages[-1].get("role") == "assistant" else messages
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise UserError("a prompt needs 'messages' or a 'prompt'", where, '{"prompt": "Why is the sky blue?"}')
    return Prompt(sha256_json([messages, row.get("answer")])[:16], messages, row)
