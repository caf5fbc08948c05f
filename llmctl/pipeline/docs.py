"""The docs' tables of settings, written from the schemas: `python -m llmctl.pipeline.docs docs` brings them up to date.

A page marks the place with `<!-- settings: STAGE -->` and `<!-- /settings -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from llmctl.pipeline.registry import stage
from llmctl.recipe.tables import settings_table

_PLACE = re.compile(r"(<!-- settings: (\w+) -->\n).*?(<!-- /settings -->)", re.S)


def refreshed(text: str) -> str:
    """`text` with every marked table made anew."""
    return _PLACE.sub(lambda m: f"{m[1]}\n{settings_table(stage(m[2]).config)}\n{m[3]}", text)


def refresh(folder: Path) -> list[Path]:
    """Rewrite the pages of `folder` whose tables have changed. Returns them."""
    changed = []
    for page in sorted(folder.glob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = refreshed(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            changed.append(page)
    return changed


if __name__ == "__main__":
    for _page in refresh(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")):
        print(_page)
