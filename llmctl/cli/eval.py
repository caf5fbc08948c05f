"""`llmctl eval MODEL...`: how good, and how sure."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, stage_command


@stage_command("eval")
def eval_(
    common: Common,
    models: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Models of the workspace, or Hugging Face folders.", autocompletion=names("model")),
    ] = None,
    tasks: Annotated[Optional[str], typer.Option(help="Which, with commas between.", metavar="A,B,C")] = None,  # noqa: UP045
) -> dict[str, Any]:
    """Measure [b]models[/b] on held-out items, with error bars, into a [b]report[/b]."""
    return {"models": models or None, "tasks": [t.strip() for t in tasks.split(",")] if tasks else None}
