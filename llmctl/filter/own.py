"""A person's own filter: a function that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from llmctl.errors import UserError
from llmctl.filter.config import OwnSettings
from llmctl.recipe.functions import load, raised


class Own:
    """The step. It sees what every other rule keeps. What the function raises ends the stage: dropping documents for it
    would hide the mistake.
    """

    name = "own"

    def __init__(self, settings: OwnSettings) -> None:
        self.settings = settings

    @cached_property
    def function(self) -> Callable[[dict[str, Any]], Any]:
        """The function that the settings name."""
        return load(self.settings.function, "filter", "own.function")

    def __call__(self, row: Mapping[str, Any]) -> str:
        """Why the row goes, in the function's words; empty where it stays."""
        try:
            answer = self.function({k: v for k, v in row.items() if k != "token_count"})
        except Exception as e:
            what, where = raised(e)
            raise UserError(
                f"your filter {self.settings.function} raised {what} (document {row['id']!r})",
                where,
                "mend the function, then run the same command again",
            ) from e
        keep, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
        if not isinstance(keep, bool):
            raise UserError(
                f"your filter {self.settings.function} returned {answer!r:.80} for document {row['id']!r}",
                fix='return True to keep it, or False, or (False, "reason")',
            )
        return "" if keep else str(reason or "rejected")
