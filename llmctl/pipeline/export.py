"""A model written out for other programs. The artifact is a Hugging Face folder already, so `hf` is a checked copy."""

from __future__ import annotations

import shutil
from pathlib import Path

from llmctl.errors import UserError, nearest
from llmctl.workspace import Workspace

_FORMATS = ("hf", "gguf", "c")


def export_model(workspace: Workspace, name: str, folder: Path, format: str) -> list[str]:
    """Write model `name` to the new `folder`, whole or not at all. Returns the names of the files."""
    if format not in _FORMATS:
        raise UserError(f"no format {format!r}{nearest(format, _FORMATS)}", fix="formats: " + ", ".join(_FORMATS))
    model = workspace.find(name, ["model"])
    if format != "hf":
        raise UserError(
            f"--format {format} is not there yet",
            fix=f"llama.cpp's convert_hf_to_gguf.py reads the hf folder: llmctl export {name} DIR --format hf",
        )
    if folder.exists():
        raise UserError("it exists already", str(folder), "choose a folder that does not")
    if wrong := model.damage(deep=True):
        raise UserError(wrong[0], fix="make the model again")
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    files = [f for f in model.files() if f != "metrics.jsonl"]
    for relative in files:
        target = beside / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(model.path / relative, target)
    beside.rename(folder)
    return files
