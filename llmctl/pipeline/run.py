"""A whole recipe: what is done is skipped, what has changed is made again, and a table says what each stage did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from llmctl.console import Console
from llmctl.pipeline.execute import execute, headline, human_seconds, say_made, show_plan
from llmctl.pipeline.plan import Recipe, check, load, locate
from llmctl.recipe import InputOf, StageSettings
from llmctl.workspace import KINDS, Artifact, Workspace


class RunConfig(StageSettings):
    """The report over a whole recipe: made of what its steps made."""

    stage: ClassVar[str] = "run"
    makes: ClassVar[str] = "report"

    title: str
    """The recipe's name."""
    steps: Annotated[list[str], InputOf(KINDS)]
    """`kind/name` of every step's artifact, in order."""


def run_recipe(
    name: str, workspace: Workspace, console: Console, *, sets: Sequence[str] = (), dry_run: bool = False
) -> list[dict[str, Any]]:
    """Check the recipe called `name`, run what is not up to date, end with its table. Returns a dict a step."""
    recipe = load(locate(name), sets)
    check(recipe, workspace)
    if dry_run:
        return _dry_run(recipe, workspace, console)
    begun = time.monotonic()
    made: list[tuple[str, Artifact, bool]] = []
    missed: list[str] = []
    total = len(recipe.steps)
    for i, (stage, config) in enumerate(recipe.configs(), 1):
        console.info(f"[{i}/{total}] {stage.name} {config.out}")
        stale = workspace.current(config) is None
        result = execute(stage, config, workspace, console, overwrite=stale)
        if result.fresh:
            say_made(stage, result, console, then=False)
        else:
            console.info(f"      up to date: {result.artifact.path}")
        made.append((stage.name, result.artifact, result.fresh))
        if missed := stage.missed(config, result.artifact):
            break  # what comes behind a bound is for models that reach it
    steps = [_row(*m) for m in made]
    steps[-1]["missed"] = missed
    page = _report(recipe, steps, [a for _, a, _ in made], workspace)
    _table(recipe, steps, console)
    fresh = sum(s["fresh"] for s in steps)
    console.done(
        f"{recipe.name}: {fresh} of {total} steps run, {total - fresh} up to date, in "
        f"{human_seconds(time.monotonic() - begun)}; report: {page}"
    )
    return steps


def _dry_run(recipe: Recipe, workspace: Workspace, console: Console) -> list[dict[str, Any]]:
    """Each step's settings; its plan too, where its inputs are there already."""
    found = []
    for stage, config in recipe.configs():
        try:
            ready = workspace.inputs_of(config) is not None
        except Exception:
            ready = False
        if ready:
            state = "up to date" if workspace.current(config) else "to be made"
            found.append({**show_plan(stage, config, workspace, console), "state": state})
        else:
            console.info(f"{stage.name} {config.out}: waits for the steps before it")
            found.append({"stage": stage.name, "settings": config.recorded(), "state": "waits for its inputs"})
    return found


def _row(stage: str, artifact: Artifact, fresh: bool) -> dict[str, Any]:
    figures = artifact.figures
    return {
        "stage": stage,
        "kind": artifact.kind,
        "name": artifact.name,
        "seconds": float(artifact.manifest.get("seconds") or 0),
        "in": str(figures.get("in") or ""),
        "out": str(figures.get("out") or ""),
        "headline": figures.get("headline"),
        "figures": figures,
        "fresh": fresh,
        "missed": [],
    }


def _table(recipe: Recipe, steps: list[dict[str, Any]], console: Console) -> None:
    rows = [
        (s["stage"], s["name"], human_seconds(s["seconds"]), s["in"], s["out"], headline(s["figures"], more=True))
        for s in steps
    ]
    rows.append(("", "all", human_seconds(sum(s["seconds"] for s in steps)), "", "", ""))
    console.table(recipe.name, ("stage", "name", "time", "in", "out", "what it changed (held out)"), rows)


def _report(recipe: Recipe, steps: list[dict[str, Any]], artifacts: list[Artifact], workspace: Workspace) -> Path:
    """The run's own report, made again only when a step was."""
    from llmctl.report.run_page import write_run_report

    config = RunConfig(out=recipe.name, title=recipe.name, steps=[f"{a.kind}/{a.name}" for a in artifacts])
    done = workspace.current(config)
    if done is None:
        full = [{**s, "metrics": a.metrics()} for s, a in zip(steps, artifacts, strict=True)]
        with workspace.build(config) as build:
            write_run_report(build.path, recipe.name, full)
            build.figures["steps"] = len(steps)
        done = build.done()
    return done.path / "report.html"
