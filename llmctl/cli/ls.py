"""`llmctl ls`: what is in the workspace."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from llmctl.cli.options import Common, command


@command
def ls(
    common: Common,
    kind: Annotated[Optional[str], typer.Argument(help="Only this kind (pages, corpus, model, ...).")] = None,  # noqa: UP045
) -> None:
    """List the artifacts of the workspace."""
    from llmctl.cli.stages import opened
    from llmctl.pipeline.look import listing, show_listing

    workspace, console = opened(common)
    rows = listing(workspace, kind)
    if common.json_mode:
        console.print_json(rows)
    else:
        show_listing(rows, workspace, console)
