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
        typer.Argument(help="sums, identity, names, lookup, python, tools, or preferences."),
    ] = None,
    count: Annotated[Optional[int], typer.Option(help="How many to make.")] = None,  # noqa: UP045
) -> dict[str, Any]:
    """Make [b]conversations[/b] or [b]comparisons[/b] by code, with held-out parts."""
    return {"mix": None if kind is None else {kind: count or 2000}, "out": kind if common.out is None else None}
