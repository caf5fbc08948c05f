"""A model written out for other programs.

The artifact is a Hugging Face folder already, so `hf` is a checked copy; a model from outside is read and written anew.
`gguf` and `c` are made by `llmctl.model.export`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from llmctl.errors import UserError, nearest
from llmctl.model.export.formats import Format, GgufType
from llmctl.workspace import Artifact, Foreign, Workspace
from llmctl.workspace.card import with_scores
from llmctl.workspace.files import fsync_dir, fsync_file


@dataclass(frozen=True)
class Exported:
    """What was made: the names of the files in `folder`, and `notes` on what the other program will do differently."""

    folder: Path
    files: list[str]
    notes: list[str]


def export_model(workspace: Workspace, name: str, folder: Path, format: str, type: str | None = None) -> Exported:
    """Write the model `name`, of the workspace or a path, to the new `folder`, whole or not at all.

    `type` is that of GGUF's matrices. UserError where the model cannot be said in the format.
    """
    _check(format, get_args(Format), "format")
    if type is not None:
        _check(type, get_args(GgufType), "type")
        if format != "gguf":
            raise UserError(f"--type {type} goes with --format gguf", fix="leave it out")
    source = workspace.resolve(name, ["model"], files=True)
    if isinstance(source, Foreign) and source.kind == "hub":
        raise UserError("export does not download models", name, "download it, and give the path of its folder")
    if folder.exists():
        raise UserError("it exists already", str(folder), "choose a folder that does not")
    if isinstance(source, Artifact) and (wrong := source.damage(deep=True)):
        raise UserError(wrong[0], fix="make the model again")
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        notes = _write(workspace, source, beside, format, type or "f16", folder.name)
        _flush(beside)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    fsync_dir(folder.parent)
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return Exported(folder, files, notes)


def _write(
    workspace: Workspace, source: Artifact | Foreign, folder: Path, format: str, type: str, called: str
) -> list[str]:
    """Put the files into `folder`. Returns the notes."""
    from llmctl.model.folder import is_reward_model, load_model, save_model

    if format == "hf" and isinstance(source, Artifact):
        for relative in (f for f in source.files() if f != "metrics.jsonl"):
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source.path / relative, target)
        _write_scores(folder / "README.md", source, workspace)
        return []
    if is_reward_model(source.path):
        raise UserError(
            f"a reward model has no --format {format}: it scores text, and no such program knows what to do with it",
            str(source.path),
            "--format hf" if isinstance(source, Artifact) else "export a model that writes text",
        )
    model, tokenizer = load_model(source.path)
    if format == "hf":
        save_model(folder, model, tokenizer)
        return []
    if format == "c":
        from llmctl.model.export.c import write_c

        write_c(folder, model, tokenizer)
        return []
    from llmctl.chat.speaker import is_chat_model
    from llmctl.model.export.gguf import write_gguf

    chats = is_chat_model(source, tokenizer.chats)
    name = (source.name if isinstance(source, Artifact) else source.path.stem) or called
    return write_gguf(folder / f"{name}-{type}.gguf", model, tokenizer, type, chats)


def _write_scores(card: Path, model: Artifact, workspace: Workspace) -> None:
    """Put what the workspace's reports say about the model into its card."""
    from llmctl.eval.leaderboard import evals_of, scores_table

    if (found := evals_of(workspace, model.digest)) and card.is_file():
        card.write_text(with_scores(card.read_text(encoding="utf-8"), scores_table(found)), encoding="utf-8")


def _check(value: str, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        raise UserError(f"no {what} {value!r}{nearest(value, known)}", fix=f"{what}s: {', '.join(known)}")


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            fsync_file(path)
    fsync_dir(folder)
