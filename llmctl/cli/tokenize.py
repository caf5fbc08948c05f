"""`llmctl tokenize CORPUS`: a tokenizer and tokens; with `-`, text on stdin becomes ids on stdout."""

from __future__ import annotations

import sys
from pathlib import Path
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
    show: Annotated[
        bool, typer.Option("--show", help="With -: the text in coloured pieces, bits, bytes, ids.")
    ] = False,
    html: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--html", help="With -: the same as a page in this file.", metavar="FILE"),
    ] = None,
    special: Annotated[
        bool, typer.Option("--special", help="With -: read special tokens in the text as such.")
    ] = False,
) -> dict[str, Any] | None:
    """Train a [b]tokenizer[/b] and turn a [b]corpus[/b] into [b]tokens[/b]."""
    if corpus != "-":
        return _stage(corpus, tokenizer, {"--decode": decode, "--show": show, "--html": html, "--special": special})
    from llmctl.cli.stages import opened
    from llmctl.tokenize.stream import How, pipe

    workspace, console = opened(common)
    how = How(decode, show, html, special, common.overwrite)
    pipe(workspace, console, tokenizer or "", sys.stdin.buffer, sys.stdout.buffer, how)
    return None


def _stage(corpus: str | None, tokenizer: str | None, piped: dict[str, Any]) -> dict[str, Any]:
    """The settings of the stage. UserError for an option that goes with `-` only."""
    from llmctl.errors import UserError

    for option, value in piped.items():
        if value:
            raise UserError(f"{option} goes with -", fix=f"echo TEXT | llmctl tokenize - {option}")
    return {"corpus": corpus, "tokenizer": tokenizer}
