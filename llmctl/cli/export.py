"""`llmctl export MODEL DIR`: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, command


@command
def export(
    common: Common,
    model: Annotated[
        str, typer.Argument(help="A model of the workspace, or the path of one.", autocompletion=names("model"))
    ],
    folder: Annotated[Path, typer.Argument(help="Where to; it must not exist yet.", metavar="DIR")],
    format: Annotated[
        str, typer.Option("--format", help="hf (transformers, vLLM), gguf (llama.cpp) or c (weights and a C program).")
    ] = "hf",
    type: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--type", help="Of gguf's matrices: f16 (as it is), q8_0 or f32."),
    ] = None,
) -> None:
    """Write a [b]model[/b] out for other programs: transformers and vLLM, llama.cpp, or a C compiler."""
    from llmctl.cli.stages import opened
    from llmctl.pipeline.export import export_model

    workspace, console = opened(common)
    made = export_model(workspace, model, folder, format, type)
    for note in made.notes:
        console.warn(note)
    console.done(f"export {model}: {', '.join(made.files)} in {folder}", _next(format, folder, made.files))
    if common.json_mode:
        found = {"model": model, "format": format, "folder": str(folder), "files": made.files, "notes": made.notes}
        console.print_json(found)


def _next(format: str, folder: Path, files: list[str]) -> str:
    """What to type to see it work."""
    if format == "c":
        return f'cd {folder} && cc -O3 -o run run.c -lm && ./run model.bin -p "Once upon a time"'
    if format == "gguf":
        return f'llama-cli -m {folder}/{files[0]} -p "Once upon a time"'
    return f"llmctl chat {folder}"
