"""One stage, from settings as typed to a finished artifact."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.pipeline.registry import Stage
from llmctl.recipe import StageSettings
from llmctl.recipe.tables import rows_of
from llmctl.workspace import Artifact, Workspace
from llmctl.workspace.store import check_name


@dataclass
class Made:
    """What became of one stage: its artifact, and whether it was there already."""

    artifact: Artifact
    fresh: bool


def execute(
    stage: Stage, config: StageSettings, workspace: Workspace, console: Console, *, overwrite: bool = False
) -> Made:
    """Make what `config` asks for, or find it made.

    UserError where an artifact of that name was made from other settings or inputs, unless `overwrite`.
    """
    check_name(config.out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return _together(stage, config, workspace, console, overwrite)
    if done := _made_already(config, workspace, overwrite):
        return Made(done, fresh=False)
    return Made(stage.run(config, workspace, console), fresh=True)


def _made_already(config: StageSettings, workspace: Workspace, overwrite: bool) -> Artifact | None:
    workspace.recover()
    done = workspace.current(config)
    if done is not None and not overwrite:
        return done
    if not overwrite and (workspace.root / config.made_kind / config.out).exists():
        raise UserError(
            f"{config.made_kind} {config.out!r} is there already, made from other settings or inputs",
            fix="--overwrite makes it again; -o NAME gives the new one another name",
        )
    return None


def _together(stage: Stage, config: StageSettings, workspace: Workspace, console: Console, overwrite: bool) -> Made:
    """The same in each of torchrun's processes. The first decides what there is to do, and alone writes."""
    from llmctl.train import distributed

    if not stage.processes:
        raise UserError(f"{stage.name} runs in one process", "WORLD_SIZE", "start it without torchrun")
    distributed.join()
    done = _made_already(config, workspace, overwrite) if distributed.rank() == 0 else None
    if distributed.agree(int(done is not None)):
        found = done or workspace.find(f"{config.made_kind}/{config.out}")
        distributed.leave()
        return Made(found, fresh=False)
    made = stage.run(config, workspace, console)
    distributed.leave()
    return Made(made, fresh=True)


def say_made(stage: Stage, made: Made, console: Console, then: bool = True) -> None:
    """The closing line: what there is now and, unless a recipe knows it already, what to type next."""
    figures = made.artifact.figures
    name = made.artifact.name
    following = stage.next(made.artifact) if then else ""
    if not made.fresh:
        console.done(f"{stage.name} {name}: up to date", following)
        return
    size = human_bytes(made.artifact.bytes)
    parts = [str(figures["out"]) if figures.get("out") else size, headline(figures)]
    seconds = float(made.artifact.manifest.get("seconds") or 0)
    text = "; ".join(p for p in parts if p)
    console.done(f"{stage.name} {name}: {text} ({human_seconds(seconds)})", following)


def headline(figures: dict[str, Any], more: bool = False) -> str:
    """`label: before -> after unit` of a stage's headline figure; with `more`, of those beside it too."""
    found = [figures.get("headline"), *(figures.get("more") or [] if more else [])]
    return "; ".join(_changed(f) for f in found if isinstance(f, dict))


def _changed(figure: dict[str, Any]) -> str:
    unit = str(figure.get("unit") or "")
    gap = "" if unit in ("", "%") else " "
    before, after = figure.get("before"), figure.get("after")
    arrow = f"{number(before)} -> " if before is not None else ""
    return f"{figure.get('label')}: {arrow}{number(after)}{gap}{unit}"


def number(value: Any) -> str:
    """A figure as a person reads it."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return " ".join(str(value).split())


def human_bytes(n: float) -> str:
    """1536 -> '1.5 KB'."""
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1024 or unit == "GB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    raise AssertionError


def human_seconds(seconds: float) -> str:
    """75 -> '1 min 15 s'."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def show_plan(stage: Stage, config: StageSettings, workspace: Workspace, console: Console) -> dict[str, Any]:
    """--dry-run: the resolved settings and what the stage says it would do, drawn and returned."""
    check_name(config.out)
    workspace.inputs_of(config)
    plan = stage.plan(config, workspace)
    flat = {key: _at(config, key) for key, *_ in rows_of(type(config))}
    console.table(f"{stage.name}: settings", ("setting", "value"), [(k, _shown(v)) for k, v in flat.items()])
    console.table(f"{stage.name}: plan", ("what", "how much"), plan)
    return {"stage": stage.name, "settings": config.recorded(), "plan": dict(plan)}


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part, None)  # a group that is optional and not there has no settings
    return config


def _shown(value: Any) -> str:
    return "" if value in (None, "", []) else str(value)
