"""`llmctl export MODEL DIR`: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, command


@command
def export(
    common: Common,
    model: Annotated[str, typer.Argument(help="A model of the workspace.", autocompletion=names("model"))],
    folder: Annotated[Path, typer.Argument(help="Where to; it must not exist yet.", metavar="DIR")],
    format: Annotated[str, typer.Option("--format", help="hf, gguf or c.")] = "hf",
) -> None:
    """Write a [b]model[/b] out for transformers, vLLM and llama.cpp's converter."""
    from llmctl.cli.stages import opened
    from llmctl.pipeline.export import export_model

    workspace, console = opened(common)
    files = export_model(workspace, model, folder, format)
    console.done(f"export {model}: {len(files)} files in {folder}")
    if common.json_mode:
        console.print_json({"model": model, "format": format, "folder": str(folder), "files": files})
