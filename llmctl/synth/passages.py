"""The passages of a corpus that are asked about: a sample that depends on the seed and the texts, not on the order."""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from llmctl.errors import UserError
from llmctl.verify import held_out
from llmctl.workspace import Artifact, Foreign

T = TypeVar("T")
_SPACES = re.compile(r"\s+")


def passages(source: Artifact | Foreign, shortest: int, longest: int) -> Iterator[str]:
    """Paragraphs of the documents, spaces evened out; short neighbours are joined until they are long enough."""
    from llmctl.formats.web import read_documents

    for document in read_documents(source.path):
        held = ""
        for line in (document.text or "").split("\n"):
            held = f"{held} {_SPACES.sub(' ', line).strip()}".strip()
            if len(held) >= shortest:
                if len(held) <= longest:
                    yield held
                held = ""


def sample(found: Iterator[str], count: int, seed: int, heldout: bool, make: Callable[[str], T | None]) -> list[T]:
    """`make` of passages from one side of the split, `count` of them or all there are; equal passages count once.

    The passages are taken in the order of a hash, and those of which nothing can be made are passed over.
    """
    chosen: dict[str, tuple[str, T]] = {}
    for passage in found:
        if held_out(passage) != heldout:
            continue
        key = hashlib.sha256(f"{seed}/{passage}".encode()).hexdigest()
        if key not in chosen and (made := make(passage)) is not None:
            chosen[key] = (key, made)
            if len(chosen) >= 2 * count + 1000:
                chosen = dict(heapq.nsmallest(count, chosen.items(), key=lambda item: item[0]))
    return [made for _, (_, made) in heapq.nsmallest(count, chosen.items(), key=lambda item: item[0])]


def required(found: list[T], source: Artifact | Foreign) -> list[T]:
    """`found`, which must not be empty."""
    if not found:
        raise UserError("no passage in it that a question can be asked about", str(source.path), "give more text")
    return found
