"""Markdown for pull requests and terminals."""

from __future__ import annotations

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A GitHub table; the first column is left-aligned, the others are figures. None is an empty cell."""
    lines = [_row(columns), "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join([*lines, *(_row(r) for r in rows)]) + "\n"


def cell(value: object) -> str:
    """One cell: on one line, and with nothing that ends it or that GitHub would render as a tag."""
    text = "" if value is None else str(value)
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _row(values: Sequence[object]) -> str:
    return "| " + " | ".join(cell(v) for v in values) + " |"
