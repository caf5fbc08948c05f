"""FineWeb's own rules (Penedo et al. 2024, section 3.5): found by comparing statistics of better and worse crawls."""

from __future__ import annotations

from collections.abc import Iterator

from llmctl.filter.characters import TERMINAL_PUNCTUATION
from llmctl.filter.config import FineWebQualitySettings
from llmctl.filter.gopher_repetition import duplicates
from llmctl.filter.row import Check, Row, above, below
from llmctl.filter.words import words

_ENDS = tuple(TERMINAL_PUNCTUATION)


class FineWebQuality:
    """The step. See `FineWebQualitySettings` for the rules."""

    name = "fineweb_quality"

    def __init__(self, settings: FineWebQualitySettings) -> None:
        self.settings = settings

    def __call__(self, row: Row) -> Iterator[Check]:
        """Line ends, short lines, repeated lines, line breaks."""
        text, limit = row.body, self.settings
        lines = [line for line in text.split("\n") if line.strip()]
        if not lines:
            yield Check("empty", True, 0.0)
            return
        yield below("line_punct_ratio", sum(x.endswith(_ENDS) for x in lines) / len(lines), limit.line_punct)
        short = sum(len(x) <= limit.short_line_length for x in lines) / len(lines)
        yield above("short_line_ratio", short, limit.short_line)
        repeated = duplicates(lines)[1] / len(text.replace("\n", ""))
        yield above("char_dup_ratio", repeated, limit.char_dup)
        yield above("list_ratio", text.count("\n") / max(len(words(text)), 1), limit.list_ratio)
