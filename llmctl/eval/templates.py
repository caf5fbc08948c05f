"""Jinja2 templates over one row, as lm-evaluation-harness renders them, in Jinja's sandbox: a task file is data that
somebody else wrote, and must not be able to run code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2 import Template as Compiled
from jinja2.sandbox import ImmutableSandboxedEnvironment


def _regex_replace(text: str, pattern: str, replacement: str, count: int = 0) -> str:
    return re.sub(pattern, replacement, text, count=count)


_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_JINJA.filters["regex_replace"] = _regex_replace


@lru_cache(maxsize=1024)
def _compiled(template: str) -> Compiled:
    return _JINJA.from_string(template)


def render_template(template: str, row: Mapping[str, Any]) -> str:
    """The text of `template` for `row`. Raises `ValueError` with one line that says why it cannot be."""
    try:
        return _compiled(template).render(**row)
    except TemplateError as e:
        raise ValueError(str(e).splitlines()[0]) from e
    except Exception as e:
        # Whatever a template's expressions raise on a row that is not as expected is the template's mistake.
        raise ValueError(f"{type(e).__name__}: {e}".splitlines()[0]) from e


def template_problem(template: str) -> str:
    """Why `template` is none; empty where it is one."""
    try:
        _compiled(template)
    except TemplateSyntaxError as e:
        return str(e.message)
    return ""
