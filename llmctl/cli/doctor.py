"""`llmctl doctor`: this machine, the dependencies, the workspace, and what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from llmctl.cli.options import Common, command


@command
def doctor(
    common: Common,
    deep: Annotated[bool, typer.Option("--deep", help="Hash every file of the workspace too.")] = False,
) -> None:
    """Check this machine, the dependencies and the workspace, and say what to do."""
    from llmctl.cli.stages import opened
    from llmctl.pipeline.doctor import examine, show_findings

    workspace, console = opened(common)
    findings = examine(workspace, deep)
    if common.json_mode:
        console.print_json([f.__dict__ for f in findings])
    else:
        show_findings(findings, console)
    if any(f.state == "bad" for f in findings):
        raise typer.Exit(2)
