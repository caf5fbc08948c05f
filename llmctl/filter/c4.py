"""C4's rules (Raffel et al. 2020) as FineWeb runs them: bad lines are left out, bad documents dropped.

The order within a line matters: a `{` in a line that an earlier rule has left out does not drop the document. The lines
that stay are joined without their blank lines, so paragraphs end here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmctl.filter.config import C4Settings
from llmctl.filter.row import Check, Row, below
from llmctl.filter.words import sentences

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_POLICY = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
_ENDS = (".", "?", "!", '"', "'")


class C4:
    """The step. See `C4Settings` for the rules."""

    name = "c4"

    def __init__(self, settings: C4Settings) -> None:
        self.settings = settings

    def __call__(self, row: Row) -> Iterator[Check]:
        """Lorem ipsum and curly brackets as they are met, then the number of sentences; then the text is rewritten."""
        kept, count = [], 0
        for number, raw in enumerate(row.body.splitlines(), 1):
            line = self._clean(raw.strip())
            if line is None:
                continue
            lower = line.lower()
            if self.settings.lorem_ipsum and "lorem ipsum" in lower:
                yield Check("lorem_ipsum", True, detail=f"line {number}")
            if self.settings.javascript and "javascript" in lower:
                continue
            if self.settings.curly_bracket and "{" in line:
                yield Check("curly_bracket", True, detail=f"line {number}")
            if self.settings.policy and any(phrase in lower for phrase in _POLICY):
                continue
            count += sentences(line)
            kept.append(line)
        yield below("too_few_sentences", count, self.settings.min_sentences)
        row.text = "\n".join(kept).strip()

    def _clean(self, line: str) -> str | None:
        """The line without citations, or None where its form drops it. Its words are counted before they are taken
        out.
        """
        limit, parts = self.settings, line.split()
        if limit.max_word_length is not None and any(len(word) > limit.max_word_length for word in parts):
            return None
        if limit.citations:
            line = _CITATION.sub("", line)
        if limit.terminal_punctuation and (not line.endswith(_ENDS) or line.endswith("...")):
            return None
        return line if len(parts) >= limit.min_line_words else None
