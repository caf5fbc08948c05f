"""`llmctl filter PAGES`: from pages to a corpus."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from llmctl.cli.complete import names
from llmctl.cli.options import Common, stage_command


@stage_command("filter", data=True)
def filter_(
    common: Common,
    pages: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(help="Pages, or a file or folder of documents.", autocompletion=names("pages", "corpus")),
    ] = None,
) -> dict[str, Any]:
    """Extract, filter and deduplicate [b]pages[/b] into a [b]corpus[/b], as FineWeb does."""
    return {"pages": pages}
