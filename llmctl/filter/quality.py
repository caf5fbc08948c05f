"""A person's own quality classifier, in the way of DCLM (Li et al. 2024, arXiv:2406.11794): the probability, by
fastText, that a text is one of the good examples.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from llmctl.errors import UserError, nearest
from llmctl.filter import fasttext_model
from llmctl.filter.config import QualitySettings
from llmctl.filter.quality_training import line_of, train
from llmctl.filter.row import Row, Rule
from llmctl.formats.web import read_documents
from llmctl.workspace import Artifact, Workspace
from llmctl.workspace.files import write_json

MODEL = "quality.bin"


class Quality:
    """The scorer. `settings.model` is the file of a model here: `prepare` has made or found it."""

    name = "quality"

    def __init__(self, settings: QualitySettings) -> None:
        self.settings = settings
        self.rules = (Rule("score", settings.threshold, "below"),)

    def __call__(self, row: Row) -> tuple[float]:
        """The probability of the good label; a text without a known word gets what the model makes of none."""
        return (self._scores(line_of(row.body, self.settings.lowercase)).get(self.settings.label, 0.0),)

    @cached_property
    def _scores(self) -> Callable[[str], fasttext_model.Scores]:
        model = fasttext_model.load(self.settings.model, "give quality.model the file of one, or the name of a corpus")
        labels = [label.removeprefix(fasttext_model.LABEL) for label in model.get_labels()]
        if self.settings.label not in labels:
            raise UserError(
                f"no label {self.settings.label!r} in the classifier{nearest(self.settings.label, labels)}",
                self.settings.model,
                f"set quality.label to one of: {', '.join(labels[:10])}",
            )
        return fasttext_model.scorer(model)


def prepare(
    settings: QualitySettings, workspace: Workspace, folder: Path, seed: int
) -> tuple[QualitySettings, dict[str, Any]]:
    """(the settings with `model` a file that every process can load, the figures of its training).

    Trains into `folder` what is to be trained: quality.bin, and its figures in quality.json; both are taken as they are
    where they exist. Figures are empty where an existing model is used.
    """
    if settings.model:
        return settings.model_copy(update={"model": str(_existing(settings.model, workspace))}), {}
    out, note = folder / MODEL, folder / "quality.json"
    if not (out.exists() and note.exists()):
        good, bad = (_texts(names, workspace) for names in (settings.good, settings.bad))
        write_json(note, train(good, bad, settings, out, seed))
    ready = settings.model_copy(update={"model": str(out), "good": [], "bad": []})
    return ready, json.loads(note.read_text(encoding="utf-8"))


def _existing(name: str, workspace: Workspace) -> Path:
    found = workspace.resolve(name, ("corpus",), files=True)
    path = found.path / MODEL if found.path.is_dir() else found.path
    if not path.is_file():
        fix = "name one whose filter had quality.good and quality.bad, or give these here"
        raise UserError("no quality classifier was trained for this corpus", name, fix)
    return path


def _texts(names: Iterable[str], workspace: Workspace) -> Iterator[str]:
    for name in names:
        source = workspace.resolve(name, ("corpus",), files=True)
        data = source.path / "data" if isinstance(source, Artifact) else source.path
        for document in read_documents(data):
            if document.text is None:
                raise UserError("examples of quality are texts, and this holds HTML", name, "llmctl filter it first")
            yield document.text
