"""`llmctl rl MODEL`: practice on problems whose answers can be checked, or against a reward model."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, stage_command


@stage_command("rl")
def rl(
    common: Common,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="The chat model to improve.", autocompletion=names("model")),
    ] = None,
    task: Annotated[Optional[str], typer.Option(help="A task with a verifiable reward, such as sums.")] = None,  # noqa: UP045
    reward: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A reward model.", autocompletion=names("model"), metavar="MODEL"),
    ] = None,
) -> dict[str, Any]:
    """Improve a [b]model[/b] by reinforcement learning: try, check, reinforce."""
    return {"model": model, "task": task, "reward": reward}
