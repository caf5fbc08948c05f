"""Parsers for the extraction's tests: they crash, hang or fail on the pages that say so."""

from __future__ import annotations

import os
import signal


def faulty(page: tuple[bytes, str | None]) -> str:
    """The page itself, unless it begins with what is to happen."""
    html, _ = page
    if html.startswith(b"crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if html.startswith(b"fail"):
        raise ValueError("no such luck")
    while html.startswith(b"hang"):
        pass
    return html.decode()


def process(page: tuple[bytes, str | None]) -> str:
    """The number of the process that parses."""
    return str(os.getpid())
