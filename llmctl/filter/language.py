"""Which language a text is in: py3langid, built in, or a fastText model that the person names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from typing import Any

from llmctl.errors import UserError
from llmctl.filter.config import LanguageSettings
from llmctl.filter.row import Check, Row

Scores = dict[str, float]


class Language:
    """The step. Sets `language` and `language_score` of every row to the best language's."""

    name = "language"

    def __init__(self, settings: LanguageSettings) -> None:
        self.settings = settings

    def __call__(self, row: Row) -> Iterator[Check]:
        """The best score among the wanted languages against the threshold; a score equal to it fails."""
        scores = self.scores(row.body.replace("\n", " "))
        best = max(scores, key=scores.__getitem__) if scores else ""
        row.language, row.language_score = best, scores.get(best, 0.0)
        wanted = self.settings.languages or [best]
        value, least = max(scores.get(name, 0.0) for name in wanted), self.settings.threshold
        yield Check("score", least is not None and not value > least, value, least, best)

    @cached_property
    def scores(self) -> Callable[[str], Scores]:
        """A function from text to the score of every language."""
        return _fasttext(self.settings.model) if self.settings.model else _py3langid()


@lru_cache(maxsize=1)  # unpacking it takes a second
def _py3langid() -> Callable[[str], Scores]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return lambda text: dict(identifier.rank(text))


def _fasttext(path: str) -> Callable[[str], Scores]:
    import fasttext

    try:
        fasttext.FastText.eprint = lambda *_: None  # a warning about its own past interface
        model: Any = fasttext.load_model(path)
    except (ValueError, RuntimeError) as e:
        raise UserError(f"it is no fastText model: {e}", path, "lid.176.bin and lid.176.ftz are at fasttext.cc") from e

    def scores(text: str) -> Scores:
        labels, values = model.predict(text, k=-1)
        # The scores of the compressed softmax may be a hair above 1.
        return {x.removeprefix("__label__"): min(float(v), 1.0) for x, v in zip(labels, values, strict=True)}

    return scores
