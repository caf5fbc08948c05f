"""`llmctl tokenize CORPUS`: a tokenizer and tokens; with `-`, text on stdin becomes ids on stdout."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Optional

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, stage_command


@stage_command("tokenize", data=True)
def tokenize(
    common: Common,
    corpus: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="A corpus, a text, JSONL or Parquet file, or - for stdin.", autocompletion=names("corpus")),
    ] = None,
    tokenizer: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Use this tokenizer: a name, a folder or a file.", autocompletion=names("tokenizer")),
    ] = None,
    decode: Annotated[bool, typer.Option("--decode", help="With -: ids on stdin, text on stdout.")] = False,
    show: Annotated[bool, typer.Option("--show", help="With -: the pieces in colour, with their ids.")] = False,
) -> dict[str, Any] | None:
    """Train a [b]tokenizer[/b] and turn a [b]corpus[/b] into [b]tokens[/b]."""
    if corpus != "-":
        return {"corpus": corpus, "tokenizer": tokenizer}
    from llmctl.cli.stages import opened
    from llmctl.tokenize.stream import pipe

    workspace, console = opened(common)
    pipe(workspace, console, tokenizer or "", sys.stdin.buffer, sys.stdout.buffer, decode=decode, show=show)
    return None
