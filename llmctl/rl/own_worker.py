"""The process that runs a person's reward function: `python -m llmctl.rl.own_worker module:function`.

One JSON object a line in, one a line out. A process of its own, since a function may hang, exit or crash, and the
training must not. What the function prints goes to standard error.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any, TextIO

from llmctl.errors import UserError
from llmctl.recipe.functions import load, raised


def main(name: str) -> None:
    """Answer until standard input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        function = load(name, "reward", "function")
    except UserError as e:
        _say(out, {"fatal": [e.what, e.where, e.fix]})
        return
    _say(out, {"ready": True})
    for line in sys.stdin:
        _say(out, answer(function, json.loads(line)))


def answer(function: Any, row: dict[str, Any]) -> dict[str, Any]:
    """{"value": a finite number, or None} or {"problem": what is wrong, "where": the file and line}."""
    try:
        value = function(row)
    except Exception as e:
        what, where = raised(e)
        return {"problem": f"raised {what}", "where": where}
    if value is None:
        return {"value": None}
    try:
        number = float(value)
    except (TypeError, ValueError):
        return {"problem": f"returned {value!r:.60}, which is no number"}
    return {"value": number} if math.isfinite(number) else {"problem": f"returned {number}"}


def _say(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1])
