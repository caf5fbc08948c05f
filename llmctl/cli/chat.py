"""`llmctl chat MODEL`: talk to it; with -p or piped text, one answer on stdout."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Optional

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, stage_command


@stage_command("chat")
def chat(
    common: Common,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="A model of the workspace, or a Hugging Face folder.", autocompletion=names("model")),
    ] = None,
    prompt: Annotated[Optional[str], typer.Option("-p", "--prompt", help="Answer this once and leave.")] = None,  # noqa: UP045
    system: Annotated[Optional[str], typer.Option(help="A system message.")] = None,  # noqa: UP045
    temperature: Annotated[Optional[float], typer.Option(help="0 is greedy.")] = None,  # noqa: UP045
    seed: Annotated[Optional[int], typer.Option(help="The same seed gives the same answer.")] = None,  # noqa: UP045
    n: Annotated[int, typer.Option("--n", help="How many answers.", min=1)] = 1,
    search: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="What the search tool looks in: conversations with a library, a corpus, a folder."),
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="An OpenAI-compatible server and a chat page.")] = False,
) -> dict[str, Any] | None:
    """Talk to a [b]model[/b]: a chat model answers, a base model continues the text."""
    typed: dict[str, Any] = {
        "model": model,
        "system": system,
        "temperature": temperature,
        "seed": seed,
        "search": search,
    }
    if common.dry_run or common.out is not None:  # a recorded answer: the stage makes an artifact of it
        return {**typed, "prompts": [prompt] if prompt is not None else None}
    from llmctl.cli.stages import opened, resolve
    from llmctl.pipeline.registry import stage

    workspace, console = opened(common)
    config: Any = resolve(stage("chat"), {k: v for k, v in typed.items() if v is not None}, common)
    if serve:
        from llmctl.chat.serve import serve_model

        serve_model(workspace, config, console)
    elif prompt is None and sys.stdin.isatty():
        from llmctl.chat.repl import start

        start(workspace, config, console)
    else:
        from llmctl.chat.oneshot import answer

        text = sys.stdin.read() if prompt in (None, "-") else prompt
        answers = answer(workspace, config, text, n, config.seed)
        if common.json_mode:
            console.print_json(answers)
        else:
            for a in answers:
                console.print(str(a["text"]))
    return None
