"""What a shard's function came to, as plain data that crosses a process boundary whoever carries it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from llmctl.errors import UserError

# ("result", value), ("mistake", (what, where, fix)) or ("defect", traceback text)
Outcome = tuple[str, Any]


class Failed(RuntimeError):
    """A defect inside a shard's function; the text is the traceback of the process that ran it."""


def attempt(function: Callable[[Any], Any], task: Any) -> Outcome:
    """Run one task. Exceptions become data: those with arguments of their own do not survive pickling."""
    try:
        return "result", function(task)
    except UserError as e:
        return "mistake", (e.what, e.where, e.fix)
    except Exception:
        return "defect", traceback.format_exc()


def value_of(outcome: Outcome, name: str) -> Any:
    """The result, or the exception that stands for what happened to the shard called `name`."""
    kind, value = outcome
    if kind == "mistake":
        raise UserError(*value)
    if kind == "defect":
        raise Failed(f"{name} failed:\n{value}")
    return value
