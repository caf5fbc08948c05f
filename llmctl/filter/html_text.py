"""What runs in the parser's own process: bytes of a page to its main text, by the extractor that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from llmctl.filter import html_resiliparse, html_trafilatura
from llmctl.filter.config import ExtractSettings
from llmctl.filter.row import well_formed
from llmctl.formats.charset import decode

_EXTRACTORS: dict[str, Callable[[ExtractSettings], Callable[[str], str]]] = {
    "trafilatura": html_trafilatura.Trafilatura,
    "resiliparse": html_resiliparse.Resiliparse,
}


class MainText:
    """(bytes of a page, charset of its HTTP header or None) to its main text, empty where there is none.

    It is sent to the parser's process before any library is loaded; `prepare` loads it there.
    """

    def __init__(self, settings: ExtractSettings) -> None:
        self.settings = settings

    def prepare(self) -> None:
        """Load the library, so that the first page does not pay for it."""
        self._extractor("<html><body><p>A page.</p></body></html>")

    def __call__(self, page: tuple[bytes, str | None]) -> str:
        """The text."""
        return self._extractor(well_formed(decode(*page)))

    @cached_property
    def _extractor(self) -> Callable[[str], str]:
        return _EXTRACTORS[self.settings.extractor](self.settings)
