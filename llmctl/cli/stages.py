"""What the stage commands have in common once their arguments are read."""

from __future__ import annotations

from typing import Any

from llmctl.cli.options import Common
from llmctl.console import Console
from llmctl.errors import Missed, UserError
from llmctl.pipeline.execute import execute, say_made, show_plan
from llmctl.pipeline.plan import load, locate
from llmctl.pipeline.registry import Stage, stage
from llmctl.recipe import StageSettings
from llmctl.recipe.check import checked
from llmctl.recipe.overrides import apply
from llmctl.recipe.source import Source
from llmctl.workspace import Workspace
from llmctl.workspace.build import follows


def opened(common: Common) -> tuple[Workspace, Console]:
    """The workspace and the console that the shared options ask for."""
    # Of torchrun's processes the first one speaks.
    quiet = common.quiet or follows()
    return Workspace(common.workspace), Console(quiet=quiet, json_mode=common.json_mode)


def run_stage(name: str, typed: dict[str, Any], common: Common, show: str = "") -> None:
    """Settings from the recipe, then the command line, then --set; then the plan, or the work.

    `show` is a file of the artifact that goes to stdout.
    """
    workspace, console = opened(common)
    which = stage(name)
    config = resolve(which, typed, common)
    if common.dry_run:
        plan = show_plan(which, config, workspace, console)
        if common.json_mode:
            console.print_json(plan)
        return
    made = execute(which, config, workspace, console, overwrite=common.overwrite)
    say_made(which, made, console)
    if common.json_mode and not follows():
        console.print_json(made.artifact.manifest)
    elif show and not follows():
        console.print(made.artifact.file(show).read_text(encoding="utf-8").rstrip())
    if missed := which.missed(config, made.artifact):
        raise Missed(missed)


def resolve(which: Stage, typed: dict[str, Any], common: Common) -> StageSettings:
    """The typed settings of one command, checked against the stage's schema."""
    data, source, at = _from_recipe(which, common)
    data = {**data, **typed}
    if common.out is not None:
        data["out"] = common.out
    return checked(which.config, apply(data, common.sets), source, at)


def _from_recipe(which: Stage, common: Common) -> tuple[dict[str, Any], Source, tuple[str | int, ...]]:
    if common.recipe is None:
        return {}, Source(f"llmctl {which.name}", {}), ()
    recipe = load(locate(common.recipe))
    steps = [s for s in recipe.steps if s.stage.name == which.name]
    if len(steps) > 1 and common.out is not None:
        steps = [s for s in steps if s.data.get("out") == common.out] or steps
    if len(steps) != 1:
        names = ", ".join(str(s.data.get("out")) for s in steps)
        raise UserError(
            f"{recipe.source.name} has {len(steps) or 'no'} {which.name} steps" + (f": {names}" if names else ""),
            fix="say which with -o NAME" if steps else "use a recipe that has one",
        )
    return steps[0].data, recipe.source, steps[0].at
