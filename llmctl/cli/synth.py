"""`llmctl synth KIND`: the post-training data that nobody writes by hand."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from llmctl.cli.options import Common, stage_command


@stage_command("synth")
def synth(
    common: Common,
    kind: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            help="By code: sums, identity, names, lookup, python, tools, countdown, letters, spelling, decimals, "
            "gsm8k, math, code, preferences. By a model: knowledge, chat, distill."
        ),
    ] = None,
    count: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="How many to make; 2000, or 200 where a model writes."),
    ] = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The model that is asked what it knows (knowledge).", metavar="MODEL"),
    ] = None,
    teacher: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The model that writes; else -s endpoint.url=... -s endpoint.model=...", metavar="MODEL"),
    ] = None,
    corpus: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Whose passages are asked about (knowledge, chat).", metavar="CORPUS"),
    ] = None,
    problems: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The problems to solve (distill).", metavar="CONVERSATIONS"),
    ] = None,
) -> dict[str, Any]:
    """Make [b]conversations[/b] or [b]comparisons[/b], by code or by a model, with held-out parts."""
    many = 200 if kind in ("knowledge", "chat", "distill") else 2000
    found = {"mix": None if kind is None else {kind: count or many}, "out": kind if common.out is None else None}
    return {**found, "model": model, "teacher": teacher, "corpus": corpus, "problems": problems}
