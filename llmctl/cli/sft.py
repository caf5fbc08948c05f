"""`llmctl sft MODEL CONVERSATIONS...`: from a base model to an assistant."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, stage_command


@stage_command("sft")
def sft(
    common: Common,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            help="A model of the workspace (base or chat), a Hugging Face folder, or hf:org/name.",
            autocompletion=names("model"),
        ),
    ] = None,
    conversations: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Conversations of the workspace, or JSONL files.", autocompletion=names("conversations")),
    ] = None,
) -> dict[str, Any]:
    """Fine-tune a [b]model[/b] on [b]conversations[/b]; only the assistant's words are learned."""
    return {"model": model, "conversations": conversations or None}
