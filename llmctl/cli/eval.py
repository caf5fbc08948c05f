"""`llmctl eval MODEL...`: how good, and how sure."""

from __future__ import annotations

import json
from typing import Annotated, Any, Optional

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, stage_command
from llmctl.errors import UserError


@stage_command("eval")
def eval_(
    common: Common,
    models: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Models of the workspace, or Hugging Face folders.", autocompletion=names("model")),
    ] = None,
    tasks: Annotated[Optional[str], typer.Option(help="Which, with commas between.", metavar="A,B,C")] = None,  # noqa: UP045
    harness: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Tasks of lm-evaluation-harness, run on our engine.", metavar="A,B,C"),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Two models side by side; Markdown on stdout.")] = False,
    fail_below: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Exit code 3 where a score is lower; repeatable.", metavar="TASK=VALUE"),
    ] = None,
    fail_above: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="The same for what should be low.", metavar="TASK=VALUE"),
    ] = None,
    arena: Annotated[bool, typer.Option("--arena", help="A judge compares the models' answers; ratings.")] = False,
    judge: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of the arena: a model, check, MODULE:FUNCTION, endpoint or person.", metavar="JUDGE"),
    ] = None,
    prompts: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of the arena: a file, one a line or JSON, or conversations.", metavar="FILE"),
    ] = None,
    scaling: Annotated[bool, typer.Option("--scaling", help="Fit loss against size and data of a sweep.")] = False,
    hold_back: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of --scaling: a run to predict instead of fitting it.", metavar="RUN|largest"),
    ] = None,
    predict: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Of --scaling: a run to predict; repeatable.", metavar="N:D"),
    ] = None,
    budget: Annotated[
        Optional[list[float]],  # noqa: UP045
        typer.Option(help="Of --scaling: FLOPs to find the best N and D for; repeatable.", metavar="FLOPS"),
    ] = None,
    leaderboard: Annotated[
        bool, typer.Option("--leaderboard", help="What the workspace's reports say about its models; measures nothing.")
    ] = False,
) -> dict[str, Any] | None:
    """Measure [b]models[/b] on held-out items, with error bars, into a [b]report[/b]."""
    if leaderboard:
        _leaderboard(common)
        return None
    if compare and len(models or []) != 2:
        raise UserError("--compare takes two models", fix="llmctl eval --compare BEFORE AFTER")
    own: list[tuple[str, dict[str, Any]]] = [
        ("arena", {"judge": judge}),
        ("scaling", {"hold_back": hold_back, "predict": predict or None, "budget": budget or None}),
    ]
    # Behind the recipe's settings and before what --set says.
    common.sets[:0] = [
        f"{group}.{key}={json.dumps(value)}"
        for group, given in own
        for key, value in given.items()
        if value is not None
    ]
    settings = {
        "models": models or None,
        "tasks": [t.strip() for t in tasks.split(",")] if tasks else None,
        "harness": [t.strip() for t in harness.split(",")] if harness else None,
        "mode": "arena" if arena else "scaling" if scaling else None,
        "conversations": [prompts] if prompts else None,
        "fail_below": fail_below or None,
        "fail_above": fail_above or None,
    }
    if not compare:
        return settings
    from llmctl.cli.stages import run_stage

    run_stage("eval", {k: v for k, v in settings.items() if v is not None}, common, show="summary.md")
    return None


def _leaderboard(common: Common) -> None:
    from llmctl.cli.stages import opened
    from llmctl.eval.leaderboard import leaderboard, markdown

    workspace, console = opened(common)
    board = leaderboard(workspace)
    if common.json_mode:
        console.print_json(board)
    else:
        console.print(markdown(board).rstrip())
