"""Token ids as they arrive, turned into text that may be shown at once."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """One token as it arrives."""

    id: int
    forced: bool
    logprob: float
    text: str
    """What may be shown now; empty while a character, or what may become a stop string, is incomplete."""


class TextPieces:
    """Bytes in, whole characters out. Holds back half a character, and what may be the beginning of a stop string."""

    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = tuple(stop_strings)
        self._held = ""
        self.stopped = False

    def push(self, data: bytes, final: bool = False) -> str:
        """The text that `data` makes safe to show. With `final`, all that is left."""
        if self.stopped:
            return ""
        text = self._held + self._decoder.decode(data, final)
        cut = first_stop(text, self._stops)
        if cut is not None:
            self.stopped, self._held = True, ""
            return text[:cut]
        hold = 0 if final else max((_overlap(text, s) for s in self._stops), default=0)
        self._held = text[len(text) - hold :]
        return text[: len(text) - hold]


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the earliest of `stops` begins in `text`."""
    found = [at for s in stops if (at := text.find(s)) >= 0]
    return min(found, default=None)


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
