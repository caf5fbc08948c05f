"""A person's own function, named `module:function` in the settings and looked for in the current folder first."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmctl.errors import UserError, nearest


def load(name: str, what: str = "function", where: str = "") -> Callable[..., Any]:
    """The function `module:function`. `what` ("filter", "reward") and `where` (the setting) go into the messages.

    UserError where the module or the function is missing, or importing it raises.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name not in (module_name, module_name.partition(".")[0]):
            raise UserError(f"your {what}'s module {module_name!r} needs {e.name!r}, which is not installed") from e
        raise UserError(f"no module {module_name!r}", where, f"put {module_name}.py into {here}") from e
    except Exception as e:
        raise UserError(f"importing your {what} {module_name!r} raised {type(e).__name__}: {e}", where) from e
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(f"no function {function_name!r} in {module_name}{nearest(function_name, names)}", where)
    return function  # type: ignore[no-any-return]


def source(name: str) -> Path | None:
    """The file that `module:function` comes from, where it lies in the current folder: an input like others. None for
    what is installed.
    """
    module = Path.cwd().joinpath(*name.partition(":")[0].split("."))
    return next((p for p in (module.with_suffix(".py"), module / "__init__.py") if p.is_file()), None)


def raised(error: BaseException) -> tuple[str, str]:
    """(what a person's function raised, the file and line where): for a message."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}", f"{at.filename}:{at.lineno}"
