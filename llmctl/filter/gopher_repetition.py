"""Repetition within a document: MassiveText's table A1 (Rae et al. 2021), as datatrove measures it.

Three details decide close cases and are kept: characters are counted against the length of the whole text; the first
occurrence of something never counts as repeated; a most frequent n-gram counts even where it occurs once.

Lines are compared as they are, n-grams by hashes of 64 bits: the most frequent by the numbers of their words; the
repeated by a polynomial over their characters, because datatrove joins their words without a space, so that "can not"
and "cannot" are the same to it. Two different n-grams are taken for the same about once in 2^64 pairs; a text could
only be made to collide on purpose, and would gain nothing by it but to be dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from llmctl.filter.config import GopherRepetitionSettings
from llmctl.filter.row import Row, Rule
from llmctl.filter.words import Words, numbered

_MEASURES = (
    *(f"dup_{unit}_{share}" for unit in ("para", "line") for share in ("frac", "char_frac")),
    *(f"top_{n}_gram" for n in (2, 3, 4)),
    *(f"duplicated_{n}_n_grams" for n in range(5, 11)),
)

# Any odd number has an inverse modulo 2^64; one without a pattern spreads the characters over all bits.
_BASE = 0x9E3779B97F4A7C15
_KEPT_POWERS = 1 << 18
# Up to so many, comparing with each is faster than searching among them.
_FEW = 16


class GopherRepetition:
    """The step. See `GopherRepetitionSettings` for the rules."""

    name = "gopher_repetition"

    def __init__(self, settings: GopherRepetitionSettings) -> None:
        self.settings = settings
        self.rules = (Rule("empty", 0.5), *(Rule(name, getattr(settings, name)) for name in _MEASURES))

    def __call__(self, row: Row) -> Sequence[float]:
        """Paragraphs, lines, most frequent n-grams, repeated n-grams; of an empty text only that."""
        text = row.body
        size = len(text)
        if not size:
            return [1.0, *[float("nan")] * len(_MEASURES)]
        values = [0.0]
        for parts in (paragraphs(text), lines(text)):
            count, characters = duplicates(parts)
            values += [count / len(parts), characters / size]
        found = numbered(text)
        values += [characters / size for characters in top_ngrams(found)]
        values += [characters / size for characters in repeated_ngrams(found)]
        return values


def paragraphs(text: str) -> list[str]:
    r"""The stripped text cut at `\n{2,}`."""
    return [part for part in (x.lstrip("\n") for x in text.strip().split("\n\n")) if part] or [""]


def lines(text: str) -> list[str]:
    r"""The text cut at `\n+`. It is not stripped: line breaks at an end add an empty line there."""
    found = [part for part in text.split("\n") if part]
    return [""] * text.startswith("\n") + found + [""] * (text.endswith("\n") or not text)


def duplicates(parts: Sequence[str]) -> tuple[int, int]:
    """(how many of `parts` were there before, their characters)."""
    distinct = set(parts)
    if len(distinct) == len(parts):
        return 0, 0
    # All of them, less the first of each.
    return len(parts) - len(distinct), sum(map(len, parts)) - sum(map(len, distinct))


def top_ngrams(found: Words) -> list[int]:
    """Characters of the most frequent 2-, 3- and 4-gram, its spaces counted, times how often it occurs; the first of
    equals.
    """
    numbers, ends = found.numbers.astype(np.uint64), found.ends
    pairs = numbers[:-1] << np.uint64(32) | numbers[1:]
    triples = pairs[:-1] * np.uint64(_BASE) + numbers[2:]
    fours = pairs[:-2] * np.uint64(_BASE) + pairs[2:]
    return [_top(grams, n, ends) for n, grams in ((2, pairs), (3, triples), (4, fours))]


def _top(grams: np.ndarray, n: int, ends: np.ndarray) -> int:
    if not len(grams):
        return 0
    ordered = np.sort(grams)
    starts = np.concatenate(([True], ordered[1:] != ordered[:-1], [True])).nonzero()[0]
    counts = starts[1:] - starts[:-1]
    count = int(counts.max())
    at = 0 if count == 1 else int(_among(grams, ordered[starts[:-1][counts == count]]).argmax())
    return int(ends[at + n] - ends[at] + n - 1) * count


def repeated_ngrams(found: Words, sizes: Sequence[int] = range(5, 11)) -> list[int]:
    """Characters, spaces not counted, in n-grams that occurred before, for each n; those counted do not overlap."""
    ends = found.ends
    codes = np.frombuffer("".join(found.text.split()).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    powers, inverses = _powers(len(codes))
    # No character may count as nothing, not even NUL.
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    np.cumsum((codes + np.uint32(1)) * powers[: len(codes)], out=sums[1:])
    sums, inverse = sums[ends], inverses[ends]
    return [_repeated((sums[n:] - sums[:-n]) * inverse[:-n], n, ends) for n in sizes]


def _repeated(hashes: np.ndarray, n: int, ends: np.ndarray) -> int:
    ordered = np.sort(hashes)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return 0
    seen: set[int] = set()
    characters = free = 0
    # Where a gram occurs only once there is nothing to count, and nothing to remember.
    places = np.flatnonzero(_among(hashes, twice))
    for at, gram in zip(places.tolist(), hashes[places].tolist(), strict=True):
        if at < free:
            continue
        if gram in seen:
            characters += int(ends[at + n] - ends[at])
            free = at + n
        else:
            seen.add(gram)
    return characters


def _among(keys: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Which keys are among some others, which are in order and not none."""
    if len(ordered) <= _FEW:
        return (keys == ordered[:, None]).any(axis=0)
    return ordered[np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)] == keys


def _powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count + 1` powers, at least, of the base and of its inverse."""
    return _kept_powers() if count < _KEPT_POWERS else _new_powers(count + 1)


@lru_cache(maxsize=1)
def _kept_powers() -> tuple[np.ndarray, np.ndarray]:
    return _new_powers(_KEPT_POWERS)


def _new_powers(count: int) -> tuple[np.ndarray, np.ndarray]:
    return _powers_of(_BASE, count), _powers_of(pow(_BASE, -1, 1 << 64), count)


def _powers_of(base: int, count: int) -> np.ndarray:
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)
