"""What was said in a chat, written as conversations that `sft` takes as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmctl.chat.config import ChatConfig
from llmctl.errors import UserError
from llmctl.workspace import Artifact, Workspace
from llmctl.workspace.files import write_atomic


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """`rows` as JSON lines."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def save_conversations(workspace: Workspace, config: ChatConfig, name: str, rows: Sequence[dict[str, Any]]) -> Artifact:
    """Make the conversations `name`. UserError where there are such already."""
    if any(a.name == name for a in workspace.artifacts("conversations")):
        raise UserError(f"there are conversations named {name!r} already", fix="choose another name")
    with workspace.build(config.model_copy(update={"out": name, "prompts": []})) as build:
        write_rows(build.path / "train.jsonl", rows)
        build.figures = {"conversations": len(rows), "out": f"{len(rows)} conversations"}
    return build.done()
