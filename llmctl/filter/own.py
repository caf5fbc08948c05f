"""A person's own filter: a function that the settings name."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from llmctl.errors import UserError, nearest
from llmctl.filter.config import OwnSettings


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
        return load(self.settings.function)

    def __call__(self, row: Mapping[str, Any]) -> str:
        """Why the row goes, in the function's words; empty where it stays."""
        try:
            answer = self.function({k: v for k, v in row.items() if k != "token_count"})
        except Exception as e:
            at = traceback.extract_tb(e.__traceback__)[-1]
            raise UserError(
                f"your filter {self.settings.function} raised {type(e).__name__}: {e} (document {row['id']!r})",
                f"{at.filename}:{at.lineno}",
                "mend the function, then run the same command again",
            ) from e
        keep, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
        if not isinstance(keep, bool):
            raise UserError(
                f"your filter {self.settings.function} returned {answer!r:.80} for document {row['id']!r}",
                fix='return True to keep it, or False, or (False, "reason")',
            )
        return "" if keep else str(reason or "rejected")


def load(name: str) -> Callable[[dict[str, Any]], Any]:
    """The function `module:function`, looked for in the current folder first. UserError where there is none."""
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name not in (module_name, module_name.partition(".")[0]):
            raise UserError(f"your filter's module {module_name!r} needs {e.name!r}, which is not installed") from e
        raise UserError(f"no module {module_name!r}", "own.function", f"put {module_name}.py into {here}") from e
    except Exception as e:
        raise UserError(f"importing your filter {module_name!r} raised {type(e).__name__}: {e}", "own.function") from e
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(
            f"no function {function_name!r} in {module_name}{nearest(function_name, names)}", "own.function"
        )
    return function  # type: ignore[no-any-return]
