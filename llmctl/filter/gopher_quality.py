"""Does it look like prose: MassiveText's quality rules (Rae et al. 2021, appendix A.1.1), as datatrove has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmctl.filter.config import GopherQualitySettings
from llmctl.filter.row import Row, Rule
from llmctl.filter.words import FIRST_STOP_WORD, LETTER, WORDY, Words, numbered

_BULLETS = ("•", "-")
_ELLIPSES = ("...", "…")


class GopherQuality:
    """The step. See `GopherQualitySettings` for the rules."""

    name = "gopher_quality"

    def __init__(self, settings: GopherQualitySettings) -> None:
        self.settings = settings
        self.rules = (
            Rule("short_doc", settings.min_words, "below"),
            Rule("long_doc", settings.max_words),
            Rule("below_avg_threshold", settings.min_word_length, "below"),
            Rule("above_avg_threshold", settings.max_word_length),
            Rule("too_many_hashes", settings.hashes),
            Rule("too_many_ellipsis", settings.ellipses),
            Rule("too_many_bullets", settings.bullets),
            Rule("too_many_end_ellipsis", settings.end_ellipses),
            Rule("below_alpha_threshold", settings.alpha, "below"),
            Rule("enough_stop_words", settings.stop_words, "below"),
        )

    def __call__(self, row: Row) -> Sequence[float]:
        """Length, word length, symbols, lines, letters, stop words."""
        text = row.body
        found = numbered(text)
        total = max(len(found), 1)
        wordy = (found.kinds & WORDY).astype(bool)
        count = int(np.count_nonzero(wordy))
        mean = int(found.lengths[wordy].sum()) / max(count, 1)
        lines = text.splitlines()
        return [
            count,
            count,
            mean,
            mean,
            text.count("#") / total,
            sum(map(text.count, _ELLIPSES)) / total,
            _fraction([line.lstrip().startswith(_BULLETS) for line in lines]),
            _fraction([line.rstrip().endswith(_ELLIPSES) for line in lines]),
            self._alpha(found),
            (int(np.bitwise_or.reduce(found.kinds)) >> FIRST_STOP_WORD).bit_count(),
        ]

    def _alpha(self, found: Words) -> float:
        """The share of the words that have a letter."""
        if self.settings.words == "whitespace":
            return _fraction([any(map(str.isalpha, chunk)) for chunk in found.text.split()])
        return int(np.count_nonzero(found.kinds & LETTER)) / max(len(found), 1)


def _fraction(which: Sequence[bool]) -> float:
    return sum(which) / max(len(which), 1)
