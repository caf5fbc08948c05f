"""Which texts are held out, decided by the text itself.

A document's hash sends it to `val` or `train`, so copies of one text stay on one side, and nothing depends on the order
or the number of documents. Where a small corpus leaves a side empty, one document is cut: its tail is held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from llmctl.errors import UserError


@dataclass(frozen=True)
class Split:
    """How to part a corpus. `cut`: the document that gives its last `tail` characters, where hashes part nothing."""

    fraction: float
    seed: int
    cut: int | None = None
    tail: int = 0

    def part(self, text: str) -> list[tuple[str, str]]:
        """The (split, text) pieces of one document, in order; one piece, except for a document that is cut."""
        place = place_of(text, self.seed)
        if self.cut is None:
            return [("val" if place < self.fraction * 2**64 else "train", text)]
        if place != self.cut:
            return [("train", text)]
        at = _boundary(text, len(text) - self.tail)
        return [(split, piece) for split, piece in (("train", text[:at]), ("val", text[at:])) if piece]

    def only(self, split: str, texts: Iterable[str]) -> Iterator[str]:
        """The pieces of `texts` that belong to `split`."""
        return (piece for text in texts for s, piece in self.part(text) if s == split)


def plan_split(texts: Iterable[str], fraction: float, seed: int) -> Split:
    """Look at the texts until both sides have one (in a large corpus: a few dozen), or at all of a small corpus."""
    plain = Split(fraction, seed)
    sides: set[str] = set()
    lowest, longest, characters = 2**64, 0, 0
    for text in texts:
        sides.add(plain.part(text)[0][0])
        if len(sides) == 2:
            return plain
        place = place_of(text, seed)
        if place < lowest:
            lowest, longest = place, len(text)
        characters += len(text)
    if not characters:
        raise UserError("the corpus holds no text", fix="look at what was crawled and filtered: `llmctl ls`")
    # All on one side. The document with the lowest hash gives its tail, as large as the fraction of the whole; a short
    # one gives at most its second half, so that both sides have something to read.
    return Split(fraction, seed, cut=lowest, tail=max(1, min(longest // 2, round(characters * fraction))))


def place_of(text: str, seed: int) -> int:
    """A number below 2**64 that a text always gets."""
    key = seed.to_bytes(8, "little", signed=True)
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8, key=key).digest(), "little")


def _boundary(text: str, at: int) -> int:
    """A place to cut near `at`: behind the line, or else the word, that it falls in, where that is not far."""
    for mark in ("\n", " "):
        found = text.find(mark, at, min(len(text) - 1, at + 200))
        if found >= 0:
            return found + 1
    return at
