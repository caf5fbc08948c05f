"""`llmctl run RECIPE`: a whole recipe; what is unchanged is skipped."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from llmctl.cli.complete import recipes
from llmctl.cli.options import Common, command
from llmctl.errors import Missed


@command
def run(
    common: Common,
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a shipped recipe.", autocompletion=recipes)
    ],
    sets: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("-s", "--set", help="Change one setting of a step; repeatable.", metavar="STEP.KEY=VALUE"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and plan; make nothing.")] = False,
) -> None:
    """Run a recipe. Finished steps whose settings and inputs are unchanged are skipped."""
    from llmctl.cli.stages import opened
    from llmctl.pipeline.run import run_recipe

    workspace, console = opened(common)
    steps = run_recipe(recipe, workspace, console, sets=sets or [], dry_run=dry_run)
    if common.json_mode:
        console.print_json(steps)
    if missed := [line for step in steps for line in step.get("missed", [])]:
        raise Missed(missed)
