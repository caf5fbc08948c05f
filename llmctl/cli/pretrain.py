"""`llmctl pretrain TOKENS`: from tokens to a base model."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, stage_command


@stage_command("pretrain")
def pretrain(
    common: Common,
    tokens: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="What `llmctl tokenize` made.", autocompletion=names("tokens")),
    ] = None,
    from_: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", help="Go on from a model, a folder, or hf:org/name.", autocompletion=names("model")),
    ] = None,
    depth: Annotated[Optional[int], typer.Option(help="The one dial: layers, and what follows from them.")] = None,  # noqa: UP045
) -> dict[str, Any]:
    """Train a base [b]model[/b] on [b]tokens[/b] to continue text."""
    return {"tokens": tokens, "depth": depth, "init": from_}
