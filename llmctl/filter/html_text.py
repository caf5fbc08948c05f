"""What runs in the parser's own process: Trafilatura, imported there and nowhere else."""

from __future__ import annotations

import logging
from typing import Any

from llmctl.formats.document import Document

# Trafilatura's caches grow without bound over many pages.
_RESET_EVERY = 1000
_calls = 0


def prepare() -> None:
    """Import Trafilatura, so that the first page does not pay for it."""
    import trafilatura

    # It logs what it cannot parse; that is recorded with the page instead.
    logging.getLogger(trafilatura.__name__).setLevel(logging.CRITICAL)


def extract(task: tuple[bytes, str | None, dict[str, Any]]) -> str:
    """The main text of (HTML, charset of the HTTP header, options of `trafilatura.extract`); empty where there is
    none.
    """
    global _calls
    from trafilatura import extract as main_text
    from trafilatura.meta import reset_caches

    html, charset, options = task
    _calls += 1
    if _calls % _RESET_EVERY == 0 and not options["deduplicate"]:  # what deduplication remembers is a cache too
        reset_caches()
    return main_text(Document(id="", html=html, charset=charset).markup(), **options) or ""
