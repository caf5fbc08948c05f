"""C4's rules (Raffel et al. 2020) as FineWeb runs them: bad lines are left out, bad documents dropped.

The order within a line matters: a `{` in a line that an earlier rule has left out does not drop the document. The lines
that stay are joined without their blank lines, so paragraphs end here. The text is rewritten whatever the values are:
those steps behind it measure what would be kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmctl.filter.config import C4Settings
from llmctl.filter.row import Row, Rule
from llmctl.filter.words import count_sentences, numbered, remember_count

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_LOREM, _SCRIPT = "lorem ipsum", "javascript"
_POLICY = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
_ENDS = (".", "?", "!", '"', "'")


class C4:
    """The step. See `C4Settings` for the rules."""

    name = "c4"

    def __init__(self, settings: C4Settings) -> None:
        self.settings = settings
        self.rules = (
            Rule("lorem_ipsum", 0.0 if settings.lorem_ipsum else None),
            Rule("curly_bracket", 0.0 if settings.curly_bracket else None),
            Rule("too_few_sentences", settings.min_sentences, "below"),
        )

    def __call__(self, row: Row) -> Sequence[float]:
        """The first line (from 1) with filler text, that with a bracket, and the number of sentences in the lines that
        stay.

        Of the first two only the one that comes first counts, as only that is met where the document is dropped at
        once.
        """
        kept, lorem, bracket = self._lines(row.body)
        if lorem and bracket and self.settings.lorem_ipsum and self.settings.curly_bracket:
            lorem, bracket = (lorem, 0) if lorem <= bracket else (0, bracket)
        for rule, number in (("lorem_ipsum", lorem), ("curly_bracket", bracket)):
            if number:
                row.details[rule] = f"line {number}"
        found = numbered(row.body)
        classes = [found.line_classes(*line) for line in kept]
        row.text = "\n".join(line for line, _, _ in kept).strip()
        remember_count(row.body, classes)
        return [lorem or float("nan"), bracket or float("nan"), count_sentences(classes)]

    def clean(self, text: str) -> str:
        """The text as the step leaves it."""
        return "\n".join(line for line, _, _ in self._lines(text)[0]).strip()

    def _lines(self, text: str) -> tuple[list[tuple[str, list[str], int]], int, int]:
        """(the lines that stay, the first line with filler text, that with a bracket); 0 where there is none. With each
        line its chunks as they were, and how many the text has up to the line's end.
        """
        kept: list[tuple[str, list[str], int]] = []
        lorem = bracket = last = 0
        for number, raw in enumerate(text.splitlines(), 1):
            chunks = raw.split()
            last += len(chunks)
            line = self._form(raw.strip(), chunks)
            if line is None:
                continue
            lower = line.lower()
            if not lorem and _LOREM in lower:
                lorem = number
            if self.settings.javascript and _SCRIPT in lower:
                continue
            if not bracket and "{" in line:
                bracket = number
            if self.settings.policy and any(phrase in lower for phrase in _POLICY):
                continue
            kept.append((line, chunks, last))
        return kept, lorem, bracket

    def _form(self, line: str, chunks: list[str]) -> str | None:
        """The line without citations, or None where its form drops it. Its words are counted before they are taken
        out.
        """
        limit = self.settings
        longest = limit.max_word_length
        if longest is not None and len(line) > longest and max(map(len, chunks)) > longest:
            return None
        if limit.citations and "[" in line:
            line = _CITATION.sub("", line)
        if limit.terminal_punctuation and (not line.endswith(_ENDS) or line.endswith("...")):
            return None
        return line if len(chunks) >= limit.min_line_words else None
