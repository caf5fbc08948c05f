"""FineWeb's own rules (Penedo et al. 2024, section 3.5): found by comparing statistics of better and worse crawls."""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.filter.characters import TERMINAL_PUNCTUATION
from llmctl.filter.config import FineWebQualitySettings
from llmctl.filter.gopher_repetition import duplicates
from llmctl.filter.row import Row, Rule
from llmctl.filter.words import count

_ENDS = frozenset(TERMINAL_PUNCTUATION)


class FineWebQuality:
    """The step. See `FineWebQualitySettings` for the rules."""

    name = "fineweb_quality"

    def __init__(self, settings: FineWebQualitySettings) -> None:
        self.settings = settings
        self.rules = (
            Rule("empty", 0.5),
            Rule("line_punct_ratio", settings.line_punct, "below"),
            Rule("short_line_ratio", settings.short_line),
            Rule("char_dup_ratio", settings.char_dup),
            Rule("list_ratio", settings.list_ratio),
        )

    def __call__(self, row: Row) -> Sequence[float]:
        """Line ends, short lines, repeated lines, line breaks; of an empty text only that."""
        text = row.body
        lines = [line for line in text.split("\n") if line.strip()]
        if not lines:
            return [1.0, *[float("nan")] * 4]
        breaks = text.count("\n")
        return [
            0.0,
            sum(line[-1] in _ENDS for line in lines) / len(lines),
            sum(len(line) <= self.settings.short_line_length for line in lines) / len(lines),
            duplicates(lines)[1] / (len(text) - breaks),
            breaks / max(count(text), 1),
        ]
