"""Repetition within a document: MassiveText's table A1 (Rae et al. 2021), as datatrove measures it.

Three details decide close cases and are kept: characters are counted against the length of the whole text; the first
occurrence of something never counts as repeated; a most frequent n-gram counts even where it occurs once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from llmctl.filter.config import GopherRepetitionSettings
from llmctl.filter.row import Check, Row, above
from llmctl.filter.words import words

_PARAGRAPHS = re.compile(r"\n{2,}")
_LINES = re.compile(r"\n+")


class GopherRepetition:
    """The step. See `GopherRepetitionSettings` for the rules."""

    name = "gopher_repetition"

    def __init__(self, settings: GopherRepetitionSettings) -> None:
        self.settings = settings

    def __call__(self, row: Row) -> Iterator[Check]:
        """Paragraphs, lines, most frequent n-grams, repeated n-grams."""
        text, most = row.body, self.settings
        size = len(text)
        if not size:
            yield Check("empty", True, 0.0)
            return
        # Only the paragraphs are those of the stripped text: a newline at the end adds an empty line below.
        for unit, parts in (("para", _PARAGRAPHS.split(text.strip())), ("line", _LINES.split(text))):
            count, characters = duplicates(parts)
            yield above(f"dup_{unit}_frac", count / len(parts), getattr(most, f"dup_{unit}_frac"))
            yield above(f"dup_{unit}_char_frac", characters / size, getattr(most, f"dup_{unit}_char_frac"))
        found = words(text)
        for n in (2, 3, 4):
            yield above(f"top_{n}_gram", top_ngram(found, n) / size, getattr(most, f"top_{n}_gram"))
        for n in range(5, 11):
            rule = f"duplicated_{n}_n_grams"
            yield above(rule, repeated_ngrams(found, n) / size, getattr(most, rule))


def duplicates(parts: Sequence[str]) -> tuple[int, int]:
    """(how many of `parts` were there before, their characters)."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        else:
            seen.add(part)
    return count, characters


def top_ngram(found: Sequence[str], n: int) -> int:
    """Characters of the most frequent n-gram, its spaces counted, times how often it occurs; the first of equals."""
    counts = Counter(zip(*(found[i:] for i in range(n)), strict=False))
    if not counts:
        return 0
    best, count = max(counts.items(), key=lambda item: item[1])
    return (sum(map(len, best)) + n - 1) * count


def repeated_ngrams(found: Sequence[str], n: int) -> int:
    """Characters, spaces not counted, in n-grams that occurred before; those counted do not overlap."""
    seen: set[str] = set()
    characters = at = 0
    while at <= len(found) - n:
        gram = "".join(found[at : at + n])
        if gram in seen:
            characters += len(gram)
            at += n
        else:
            seen.add(gram)
            at += 1
    return characters
