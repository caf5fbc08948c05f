"""Filters as a person writes them."""

from __future__ import annotations

from typing import Any


def no_bridges(document: dict[str, Any]) -> Any:
    return (False, "bridge") if "bridge" in document["text"] else True


def raises(document: dict[str, Any]) -> bool:
    return document["no such field"]  # type: ignore[no-any-return]


def says_maybe(document: dict[str, Any]) -> str:
    return "maybe"


NOT_CALLABLE = 3
