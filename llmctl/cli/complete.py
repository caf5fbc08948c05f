"""Names for the shell to complete: a look at the folders of the workspace, nothing imported."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def names(*kinds: str) -> Callable[[str], list[str]]:
    """A completion of the artifacts of `kinds`, or of all kinds."""

    def complete(incomplete: str) -> list[str]:
        root = Path(os.environ.get("LLMCTL_WORKSPACE") or "workspace")
        found = {p.parent.name for k in kinds or ("*",) for p in root.glob(f"{k}/*/manifest.json")}
        return sorted(n for n in found if n.startswith(incomplete))

    return complete


def recipes(incomplete: str) -> list[str]:
    """A completion of the shipped recipes."""
    from llmctl.pipeline.plan import shipped_recipes

    return [n for n in shipped_recipes() if n.startswith(incomplete)]
