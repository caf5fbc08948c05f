"""Trafilatura's main text, with what it would remember from page to page kept in bounds."""

from __future__ import annotations

import logging
from typing import Any

from llmctl.filter import html_shortcuts
from llmctl.filter.config import ExtractSettings

# Its caches hold text of pages that are long gone.
_RESET_EVERY = 1000


class Trafilatura:
    """HTML to text: one line a paragraph. The same page gives the same text whatever came before it, unless
    `deduplicate` is on.
    """

    def __init__(self, settings: ExtractSettings) -> None:
        import trafilatura

        html_shortcuts.install()
        # It logs what it cannot parse; that is recorded with the page instead.
        logging.getLogger(trafilatura.__name__).setLevel(logging.CRITICAL)
        self._main_text, self._pages = trafilatura.extract, 0
        self._options: dict[str, Any] = {
            "favor_precision": settings.favor_precision,
            "include_comments": settings.comments,
            "include_tables": settings.tables,
            "deduplicate": settings.deduplicate,
            "fast": settings.fast,
        }

    def __call__(self, markup: str) -> str:
        """The main text; empty where there is none."""
        from trafilatura.meta import reset_caches

        self._pages += 1
        if self._pages % _RESET_EVERY == 0 and not self._options["deduplicate"]:  # its memory is one of the caches
            reset_caches()
        return self._main_text(markup, **self._options) or ""
