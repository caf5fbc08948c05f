"""A schema as a Markdown table: the docs' tables of settings are made from the settings themselves."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def settings_table(schema: type[BaseModel]) -> str:
    """Markdown: a row a setting, groups with dotted keys."""
    rows = ["| setting | type | default | what it does |", "|---|---|---|---|"]
    rows += [f"| `{k}` | {t} | {d} | {text} |" for k, t, d, text in rows_of(schema)]
    return "\n".join(rows) + "\n"


def rows_of(schema: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """(key, type, default, documentation) of every setting, groups opened. The groups that a stage shares with another
    come last: its own settings say what it does.
    """
    found = []
    own = inspect.get_annotations(schema)
    fields = schema.model_fields.items()
    for name, field in sorted(fields, key=lambda f: not prefix and f[0] not in own and _is_group(f[1].annotation)):
        group = field.annotation
        if _is_group(group):
            found += rows_of(group, f"{prefix}{name}.")
            continue
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        inner = _optional_group(group)
        shown = "settings, or nothing" if inner else type_name(field.annotation)
        found.append((f"{prefix}{name}", shown, _default(field), text))
        found += rows_of(inner, f"{prefix}{name}.") if inner else []
    return found


def _is_group(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _optional_group(annotation: Any) -> type[BaseModel] | None:
    """The group of settings that a setting may be besides None."""
    args = get_args(annotation)
    groups = [a for a in args if isinstance(a, type) and issubclass(a, BaseModel)]
    return groups[0] if groups and type(None) in args else None


def type_name(annotation: Any) -> str:
    """A type as a person would write it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return type_name(get_args(annotation)[0])
    args = [a for a in get_args(annotation) if a is not type(None)]
    if origin is None:
        return getattr(annotation, "__name__", str(annotation))
    if origin in (list, tuple, dict):
        return f"{origin.__name__} of {' to '.join(type_name(a) for a in args if a is not ...)}"
    if str(origin) == "typing.Literal":
        return " \\| ".join(f"`{a}`" for a in args)
    return " \\| ".join(type_name(a) for a in args)


def _default(field: Any) -> str:
    if field.is_required():
        return "*required*"
    value = field.default_factory() if field.default_factory else field.default
    if value is PydanticUndefined or value is None or value == "":
        return ""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace("|", "\\|")
