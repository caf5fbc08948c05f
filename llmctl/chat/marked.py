"""A model's Markdown as it is shown: nothing of what was said is lost.

Markdown as such drops what it takes for HTML (<answer>4</answer>, List<int>), joins lines that end in one line break,
hides where a link leads, and makes emphasis of 2*3*4. A page is written for that; an answer is not.
"""

from __future__ import annotations

from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from rich.markdown import Markdown


def marked(text: str) -> Markdown:
    """`text` for a `rich` console."""
    found = Markdown(text, hyperlinks=False)
    found.parsed = _PARSER.parse(text)
    for token in found.parsed:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
    return found


def _times(state: StateInline, silent: bool) -> bool:
    """A star between digits is a product."""
    before, star, after = (state.src[state.pos + k : state.pos + k + 1] for k in (-1, 0, 1))
    if star != "*" or not (before.isdigit() and after.isdigit()):
        return False
    if not silent:
        state.pending += star
    state.pos += 1
    return True


def _parser() -> MarkdownIt:
    parser: Any = MarkdownIt().enable(["strikethrough", "table"]).disable(["html_block", "html_inline"])
    parser.inline.ruler.before("emphasis", "times", _times)
    return parser  # type: ignore[no-any-return]


_PARSER = _parser()
