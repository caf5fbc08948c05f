"""`llmctl chat MODEL`: talk to it; with -p or piped text, one answer on stdout."""

from __future__ import annotations

import sys
from pathlib import Path
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
        typer.Option(
            help="What the search tool looks in: conversations with a library, a corpus, a folder, or the web, by the "
            "URL of a search endpoint with {query} in it."
        ),
    ] = None,
    reward: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="A reward model, for /score and for the best of /n.", autocompletion=names("model")),
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="An OpenAI-compatible server and a chat page.")] = False,
    host: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Where --serve listens; beyond this machine it needs LLMCTL_API_KEY."),
    ] = None,
    port: Annotated[Optional[int], typer.Option(help="The port of --serve; 0 takes a free one.")] = None,  # noqa: UP045
    rank: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Order --n answers to each prompt of a file: comparisons.", metavar="FILE"),
    ] = None,
    write: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Answer each prompt of a file yourself: conversations.", metavar="FILE"),
    ] = None,
    replay: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Make a chat of the log again, the same tokens.", metavar="ID"),
    ] = None,
) -> dict[str, Any] | None:
    """Talk to a [b]model[/b]: a chat model answers, a base model continues the text."""
    typed: dict[str, Any] = {
        "model": model,
        "system": system,
        "temperature": temperature,
        "seed": seed,
        "search": search,
        "reward": reward,
        "host": host,
        "port": port,
    }
    if common.dry_run or (
        common.out is not None and rank is None and write is None
    ):  # a recorded answer: the stage makes an artifact of it
        return {**typed, "prompts": [prompt] if prompt is not None else None}
    from llmctl.cli.stages import opened, resolve
    from llmctl.pipeline.registry import stage

    workspace, console = opened(common)
    if replay is not None and model is None:
        from llmctl.chat.log import model_of

        typed["model"] = model_of(workspace, replay)
    if write is not None and model is None:
        typed["model"] = ""  # a person answers
    config: Any = resolve(stage("chat"), {k: v for k, v in typed.items() if v is not None}, common)
    if serve:
        from llmctl.chat.serve import serve_model

        serve_model(workspace, config, console)
    elif rank is not None or write is not None:
        from llmctl.chat import labelling

        config = config.model_copy(update={"out": common.out or ("rankings" if rank is not None else "written")})
        if rank is not None:
            labelling.rank(workspace, config, rank, n if n > 1 else 4, console)
        elif write is not None:
            labelling.write(workspace, config, write, console)
    elif replay is not None:
        _replay(workspace, config, replay, common.json_mode, console)
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


def _replay(workspace: Any, config: Any, chat: int, as_json: bool, console: Any) -> None:
    from llmctl.chat.replay import replay

    found = replay(workspace, config, chat)
    if as_json:
        console.print_json(found)
    else:
        for turn in found:
            console.print(str(turn["text"]))
    same = sum(turn["same"] for turn in found)
    why = "" if same == len(found) else "; those made in a batch (/n, --serve), or with another --search, may differ"
    console.info(f"{same} of {len(found)} replies came out the same, token for token{why}")
