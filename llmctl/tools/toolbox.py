"""The tools of one session, behind the one call that the engine makes."""

from __future__ import annotations

from typing import Protocol

from llmctl.tools.python import SECONDS, run_python, why_off
from llmctl.tools.results import neutral
from llmctl.tools.web import SearchFailed

NOTHING = "nothing found"
_LIMIT = 600  # characters of a result: a page of it would fill a small model's context


class Searcher(Protocol):
    """Anything that finds documents: `search.SearchIndex`, `web.WebSearch`."""

    def search(self, query: str, k: int = 1, limit: int = 600) -> list[tuple[str, str]]:
        """The `k` best (title, text), the best first."""


class Toolbox:
    """`toolbox("search", query)` and `toolbox("python", code)`; a tool that is off says so. Threads may call it."""

    def __init__(self, search: Searcher | None = None, python: bool = False, seconds: float = SECONDS) -> None:
        self.search, self.python, self.seconds = search, python, seconds

    def __call__(self, tool: str, text: str) -> str:
        """The result as text, bounded and neutralised: it is data, whatever it says."""
        return neutral(self._run(tool, text), _LIMIT)

    def off(self) -> str:
        """Why a tool that was asked for is off on this machine, in one line for the person; empty where none is."""
        why = why_off() if self.python else ""
        return f"the python tool is off: {why}" if why else ""

    def _run(self, tool: str, text: str) -> str:
        if tool == "search" and self.search is not None:
            try:
                found = self.search.search(text, k=1, limit=_LIMIT)
            except SearchFailed as e:
                return f"the search failed: {e}"
            return "\n".join(f"{title}: {passage}" if title else passage for title, passage in found) or NOTHING
        if tool == "python" and self.python:
            return run_python(text, self.seconds, output=_LIMIT)
        return f"the tool {tool!r} is not available"
