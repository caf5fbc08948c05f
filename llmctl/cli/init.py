"""`llmctl init`: make a workspace."""

from __future__ import annotations

from llmctl.cli.options import Common, command


@command
def init(common: Common) -> None:
    """Make a workspace. Every command does so on first use; this one only says where."""
    from llmctl.cli.stages import opened

    workspace, console = opened(common)
    workspace.root.mkdir(parents=True, exist_ok=True)
    console.done(f"workspace: {workspace.root.resolve()}", "llmctl crawl demo")
    if common.json_mode:
        console.print_json({"workspace": str(workspace.root.resolve())})
