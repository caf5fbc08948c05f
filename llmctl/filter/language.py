"""Which language a text is in: py3langid, built in, or a fastText model: by its path, or fetched by its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from llmctl.filter import fasttext_model, langid
from llmctl.filter.config import FASTTEXT_LANGUAGE_MODELS, LanguageSettings
from llmctl.filter.download import cache_folder, fetch
from llmctl.filter.fasttext_model import Scores
from llmctl.filter.row import Row, Rule

_PUBLISHED_AT = "https://dl.fbaipublicfiles.com/fasttext/supervised-models"


class Language:
    """The scorer. Sets `language` and `language_score` of every row to the best language's; its value is the best score
    among the wanted languages, and one equal to the threshold is not enough.
    """

    name = "language"

    def __init__(self, settings: LanguageSettings) -> None:
        self.settings = settings
        self.rules = (Rule("score", settings.threshold, "not_above"),)

    def __call__(self, row: Row) -> tuple[float]:
        """The score; in the details, the best language."""
        scores = self.scores(row.body.replace("\n", " "))
        best = max(scores, key=scores.__getitem__) if scores else ""
        row.language, row.language_score = best, scores.get(best, 0.0)
        row.details["language.score"] = best  # with the step's name: another step has a rule `score` too
        wanted = self.settings.languages or [best]
        return (max(scores.get(name, 0.0) for name in wanted),)

    @cached_property
    def scores(self) -> Callable[[str], Scores]:
        """A function from text to the score of every language."""
        path = model_path(self.settings)
        fix = "lid.176.bin and lid.176.ftz are at fasttext.cc"
        return fasttext_model.scorer(fasttext_model.load(path, fix)) if path else langid.scorer()


def model_path(settings: LanguageSettings) -> Path | None:
    """The file of the model, fetched where it is one of fastText's own and not here yet; None for the built-in one.

    `$LLMCTL_FASTTEXT_URL` names a mirror of the folder that fastText publishes them in.
    """
    name = settings.model
    sha256 = FASTTEXT_LANGUAGE_MODELS.get(name)
    if sha256 is None or Path(name).is_file():
        return Path(name).expanduser() if name else None
    address = os.environ.get("LLMCTL_FASTTEXT_URL") or _PUBLISHED_AT
    return fetch(f"{address.rstrip('/')}/{name}", cache_folder() / name, sha256)
