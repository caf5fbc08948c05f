"""Does it look like prose: MassiveText's quality rules (Rae et al. 2021, appendix A.1.1), as datatrove has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmctl.filter.characters import PUNCTUATION_SET
from llmctl.filter.config import GopherQualitySettings
from llmctl.filter.row import Check, Row, above, below
from llmctl.filter.words import words

STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
_BULLETS = ("•", "-")
_ELLIPSES = ("...", "…")


class GopherQuality:
    """The step. See `GopherQualitySettings` for the rules."""

    name = "gopher_quality"

    def __init__(self, settings: GopherQualitySettings) -> None:
        self.settings = settings

    def __call__(self, row: Row) -> Iterator[Check]:
        """Length, word length, symbols, lines, letters, stop words."""
        text, limit = row.body, self.settings
        found = words(text)
        total = max(len(found), 1)
        wordy = [len(w) for w in found if not PUNCTUATION_SET.issuperset(w)]
        yield below("short_doc", len(wordy), limit.min_words)
        yield above("long_doc", len(wordy), limit.max_words)
        mean = sum(wordy) / max(len(wordy), 1)
        yield below("below_avg_threshold", mean, limit.min_word_length)
        yield above("above_avg_threshold", mean, limit.max_word_length)
        yield above("too_many_hashes", text.count("#") / total, limit.hashes)
        yield above("too_many_ellipsis", sum(map(text.count, _ELLIPSES)) / total, limit.ellipses)
        lines = text.splitlines()
        yield above("too_many_bullets", _fraction([x.lstrip().startswith(_BULLETS) for x in lines]), limit.bullets)
        ends = _fraction([x.rstrip().endswith(_ELLIPSES) for x in lines])
        yield above("too_many_end_ellipsis", ends, limit.end_ellipses)
        # Every word counts here, punctuation marks too: see the setting.
        alpha = sum(any(map(str.isalpha, w)) for w in found) / total
        yield below("below_alpha_threshold", alpha, limit.alpha)
        yield below("enough_stop_words", len(STOP_WORDS.intersection(found)), limit.stop_words)


def _fraction(which: Sequence[bool]) -> float:
    return sum(which) / max(len(which), 1)
