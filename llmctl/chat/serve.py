"""The place of the OpenAI-compatible server."""

from __future__ import annotations

from typing import NoReturn

from llmctl.chat.config import ChatConfig
from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.workspace import Workspace


def serve_model(workspace: Workspace, config: ChatConfig, console: Console) -> NoReturn:
    """Always a UserError: this version has no server yet."""
    raise UserError(
        "there is no server yet",
        "--serve",
        f"talk in the terminal (llmctl chat {config.model}), or serve the model folder with vLLM or transformers",
    )
