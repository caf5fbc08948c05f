"""`--set key.sub=value`: one setting changed from the command line, its value read as YAML."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from llmctl.errors import UserError
from llmctl.recipe.source import parse


def apply(data: dict[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with every `key.sub=value` of `sets` put in. UserError for one without '='."""
    data = copy.deepcopy(data)
    for text in sets:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise UserError(f"--set {text!r} has no key=value", fix="write --set optimizer.lr=0.01")
        put(data, key.strip(), parse(value, f"--set {key}").data)
    return data


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set the dotted `key` in `data`, making the groups on the way."""
    *groups, last = key.split(".")
    for group in groups:
        inner = data.setdefault(group, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {key}: {group!r} is a single value, not a group")
        data = inner
    data[last] = value
