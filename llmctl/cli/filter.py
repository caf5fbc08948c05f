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
    sweep: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--sweep", help="Count what other thresholds keep; make nothing.", metavar="KEY=V1,V2"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first damaged place of an archive.")] = False,
) -> dict[str, Any] | None:
    """Extract, filter and deduplicate [b]pages[/b] into a [b]corpus[/b], as FineWeb does."""
    if sweep:
        _sweep(common, pages, sweep)
        return None
    return {"pages": pages, "strict": strict or None}


def _sweep(common: Common, pages: str | None, asked: list[str]) -> None:
    from llmctl.cli.stages import opened, resolve
    from llmctl.filter.sweep import show, sweep
    from llmctl.pipeline.registry import stage

    workspace, console = opened(common)
    config = resolve(stage("filter"), {"pages": pages} if pages else {}, common)
    found = sweep(config, workspace.resolve(config.pages, ("corpus",), files=True), asked)  # type: ignore[attr-defined,arg-type]
    if common.json_mode:
        console.print_json([swept.as_dict() for swept in found])
    else:
        show(found, console)
