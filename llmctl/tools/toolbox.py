"""The tools of one session, behind the one call that the engine makes."""

from __future__ import annotations

from llmctl.tools.python import SECONDS, run_python
from llmctl.tools.search import SearchIndex

NOTHING = "nothing found"
_LIMIT = 600  # characters of a result: a page of it would fill a small model's context


class Toolbox:
    """`toolbox("search", query)` and `toolbox("python", code)`; a tool that is off says so. Threads may call it."""

    def __init__(self, search: SearchIndex | None = None, python: bool = False, seconds: float = SECONDS) -> None:
        self.search, self.python, self.seconds = search, python, seconds

    def __call__(self, tool: str, text: str) -> str:
        """The result as text, bounded. It is data: the engine encodes it without special tokens."""
        if tool == "search" and self.search is not None:
            found = self.search.search(text, k=1, limit=_LIMIT)
            return "\n".join(f"{title}: {passage}" if title else passage for title, passage in found) or NOTHING
        if tool == "python" and self.python:
            return run_python(text, self.seconds, output=_LIMIT)
        return f"the tool {tool!r} is not available"
