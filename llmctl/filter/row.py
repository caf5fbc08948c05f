"""A document on its way through the steps, and what a rule has to say about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from llmctl.formats.document import Document

_SURROGATE = re.compile("[\ud800-\udfff]")


class Row:
    """One document. Steps read and rewrite `text`; None means that it is not extracted yet.

    `size` is the bytes of the text in UTF-8, or of the page while there is no text.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.id, self.url = well_formed(document.id), well_formed(document.url)
        self.dump, self.date = well_formed(document.dump), well_formed(document.date)
        self.file_path = well_formed(document.file_path)
        self.language, self.language_score = document.language or "", None
        self.details: dict[str, str] = {}
        self.size = len(document.html or b"")
        self._text: str | None = None
        if document.text is not None:
            self.text = well_formed(document.text)

    language: str
    language_score: float | None

    @property
    def text(self) -> str | None:
        """The text, once there is one."""
        return self._text

    @text.setter
    def text(self, text: str) -> None:
        self._text, self.size = text, len(text.encode())

    @property
    def body(self) -> str:
        """The text, by the time every step may rely on there being one."""
        assert self._text is not None, "a text rule before extraction"
        return self._text

    def columns(self) -> dict[str, Any]:
        """The row of the corpus. Tokens are counted at the end, when the text no longer changes."""
        return {
            "text": self.body,
            "id": self.id,
            "dump": self.dump,
            "url": self.url,
            "date": self.date,
            "file_path": self.file_path,
            "language": self.language,
            "language_score": self.language_score,
            "token_count": None,
        }


@dataclass(frozen=True)
class Rule:
    """A rule of a step: its name, its threshold (None: never drops), and on which side of it a value drops.

    "above" and "below" are strict; "not_above" drops a value equal to the threshold too. NaN never drops: the rule does
    not apply to the document.
    """

    name: str
    threshold: float | None
    drops: Literal["above", "below", "not_above"] = "above"

    def fails(self, values: np.ndarray) -> np.ndarray:
        """Shape (documents,) float64 to (documents,) bool."""
        if self.threshold is None:
            return np.zeros(len(values), dtype=bool)
        if self.drops == "above":
            return values > self.threshold
        if self.drops == "below":
            return values < self.threshold
        return values <= self.threshold


class Scorer(Protocol):
    """A step of the first pass: measures a document, whatever its thresholds say; what is dropped is decided later.

    A call gives one value a rule, in the order of `rules`; it may rewrite `row.text` for the steps behind it, and put
    what a number cannot say (the entry of a block list, the language found) into `row.details[rule name]`.
    """

    name: str

    @property
    def rules(self) -> Sequence[Rule]:
        """Its rules, in the published order."""
        ...

    def __call__(self, row: Row) -> Sequence[float]:
        """The values, in order; NaN where a rule does not apply."""
        ...


def well_formed(text: str) -> str:
    """`text` without lone surrogates, which JSON can carry and UTF-8 cannot."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
