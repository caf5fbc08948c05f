"""`llmctl crawl SOURCE...`: pages from the web, from archives, from folders."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Optional

import typer

from llmctl.cli.options import Common, stage_command


@stage_command("crawl")
def crawl(
    common: Common,
    source: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            help="A URL, a WARC file, a folder of HTML, cc:CRAWL-ID?url=PATTERN, demo, or - for URLs on stdin."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first damaged place of an archive.")] = False,
) -> dict[str, Any]:
    """Fetch web pages, or take them from archives and folders, into [b]pages[/b]."""
    sources: list[str] = []
    for s in source or []:
        sources += [u.strip() for u in sys.stdin if u.strip() and not u.startswith("#")] if s == "-" else [s]
    return {"source": sources or None, "strict": strict or None}
