"""One document as any reader hands it on, and the list of what could not be read.

A reader never stops at a damaged place: it names the place and goes on behind it. Whoever asked decides whether that is
good enough (a warning with a count) or not (`strict`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from llmctl.errors import UserError
from llmctl.formats.charset import decode


@dataclass
class Document:
    """A web page or a text, with where it came from.

    Exactly one of `html` (bytes as served) and `text` is set. `charset` is the one named by the HTTP header.
    `date` is ISO 8601 or empty; `dump` the crawl it belongs to (`CC-MAIN-2024-10`); `file_path` the file it was read
    from, relative to the folder that was given.
    """

    id: str
    url: str = ""
    text: str | None = None
    html: bytes | None = None
    content_type: str = ""
    charset: str | None = None
    date: str = ""
    dump: str = ""
    file_path: str = ""
    language: str | None = None

    def markup(self) -> str:
        """The HTML as text: decoded by what it says of itself and by what its bytes are."""
        assert self.html is not None, "a plain text has no markup"
        return decode(self.html, self.charset)


@dataclass(frozen=True)
class Damage:
    """A place that could not be read: the file, where in it, and what is wrong."""

    file: str
    where: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file} ({self.where})" if self.where else self.file
        return f"{place}: {self.what}"


@dataclass
class DamageList:
    """Collects damage; with `strict` the first one is a UserError."""

    strict: bool = False
    found: list[Damage] = field(default_factory=list)

    def add(self, file: str, where: str, what: str) -> None:
        """Note one damaged place."""
        damage = Damage(file, where, what)
        if self.strict:
            raise UserError(f"damaged: {what}", f"{file} ({where})" if where else file, "leave out strict to skip it")
        self.found.append(damage)

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Damage]:
        return iter(self.found)
