"""`llmctl rl MODEL`: practice on problems whose answers can be checked, or against a reward model or a function."""

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
    method: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="grpo (the default), dr-grpo, dapo, gspo, rloo, reinforce, ppo, expert-iteration, best-of-n or dpo."
        ),
    ] = None,
    task: Annotated[Optional[str], typer.Option(help="A task with a verifiable reward, such as sums.")] = None,  # noqa: UP045
    reward: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A reward model.", autocompletion=names("model"), metavar="MODEL"),
    ] = None,
    function: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A reward of your own, in mine.py: mine:good.", metavar="MODULE:FUNCTION"),
    ] = None,
    data: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Prompts, or dpo's comparisons, in place of a task.", metavar="NAME"),
    ] = None,
) -> dict[str, Any]:
    """Improve a [b]model[/b] by reinforcement learning: try, check, reinforce."""
    if method is not None:
        common.sets.insert(0, f"method.name={method}")  # so that -s method.beta=0.1 beside it changes only that
    return {"model": model, "task": task, "data": data, "reward": reward, "function": function}
