"""`llmctl rm MODEL COMPARISONS...`: a model that says which answer is better."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, stage_command


@stage_command("rm")
def rm(
    common: Common,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="The chat model to start from.", autocompletion=names("model")),
    ] = None,
    comparisons: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Comparisons of the workspace, or JSONL files.", autocompletion=names("comparisons")),
    ] = None,
) -> dict[str, Any]:
    """Train a reward [b]model[/b] to agree with [b]comparisons[/b]."""
    return {"model": model, "comparisons": comparisons or None}
