"""`llmctl show NAME`: one artifact, whence it came, and what it holds."""

from __future__ import annotations

from typing import Annotated

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, command


@command
def show(
    common: Common,
    name: Annotated[str, typer.Argument(help="An artifact, as NAME or KIND/NAME.", autocompletion=names())],
) -> None:
    """Show one artifact: figures, settings, files, and its lineage as a tree."""
    from llmctl.cli.stages import opened
    from llmctl.pipeline.look import described, show_artifact

    workspace, console = opened(common)
    artifact = workspace.find(name)
    if common.json_mode:
        console.print_json(described(artifact, workspace))
    else:
        show_artifact(artifact, workspace, console)
