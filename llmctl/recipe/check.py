"""Settings checked against a schema that is handed in: all mistakes at once, each with its line and the nearest key."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from llmctl.errors import UserError, UserErrors, nearest
from llmctl.recipe.source import KeyPath, Source

S = TypeVar("S", bound=BaseModel)


def problems(schema: type[BaseModel], data: Any, source: Source, at: KeyPath = ()) -> list[UserError]:
    """Every way in which `data`, which stands at `at` in `source`, does not fit `schema`."""
    try:
        schema.model_validate(data)
        return []
    except ValidationError as e:
        found = _without_union_noise(e.errors(include_url=False))
        found.sort(key=lambda err: source.line((*at, *err["loc"])) or 0)
        return [_explain(schema, err, source, at) for err in found]


def checked(schema: type[S], data: Any, source: Source, at: KeyPath = ()) -> S:
    """`data` as `schema`, or one error that lists every mistake."""
    wrong = problems(schema, data, source, at)
    if wrong:
        raise wrong[0] if len(wrong) == 1 else UserErrors(wrong)
    return schema.model_validate(data)


def _without_union_noise(errors: list[Any]) -> list[Any]:
    """One error a place: a value that fits no member of a union is reported once, not once a member."""
    seen, kept = set(), []
    for err in errors:
        place = tuple(p for p in err["loc"] if not (isinstance(p, str) and (p[:1].isupper() or "[" in p)))
        if place not in seen:
            seen.add(place)
            kept.append(err)
    return kept


def _explain(schema: type[BaseModel], err: Any, source: Source, at: KeyPath) -> UserError:
    loc = tuple(err["loc"])
    key = ".".join(str(p) for p in loc)
    where = source.where((*at, *loc))
    if err["type"] == "extra_forbidden":
        valid = sorted(keys_at(schema, loc[:-1]))
        near = nearest(str(loc[-1]), valid)
        return UserError(f"unknown key {key!r}{near}", where, "" if near else "valid keys: " + ", ".join(valid))
    if err["type"] == "missing":
        return UserError(f"{key!r} is missing", where, f"add it: {describe(schema, loc)}")
    shown = repr(err.get("input"))
    shown = shown if len(shown) < 60 else shown[:57] + "..."
    message = str(err["msg"])
    if err["type"] == "value_error":
        return UserError(f"{key + ': ' if key else ''}{message.removeprefix('Value error, ')}", where)
    if message.startswith("Input should be "):
        return UserError(f"{key!r} is {shown}; it should be {message.removeprefix('Input should be ')}", where)
    return UserError(
        f"{key!r} is {shown}: {message[0].lower()}{message[1:].removesuffix(' after validation, not 0')}", where
    )


def model_at(schema: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The group of settings that stands at `path` below `schema`, or None."""
    found: type[BaseModel] | None = schema
    for part in path:
        if isinstance(part, int):
            continue
        if found is None or part not in found.model_fields:
            return None
        found = _group(found.model_fields[part].annotation)
    return found


def keys_at(schema: type[BaseModel], path: KeyPath) -> list[str]:
    """The valid keys at `path`."""
    group = model_at(schema, path)
    return list(group.model_fields) if group else []


def describe(schema: type[BaseModel], path: KeyPath) -> str:
    """The first sentence of a setting's documentation."""
    group = model_at(schema, path[:-1])
    field = group.model_fields.get(str(path[-1])) if group and path else None
    text = " ".join((field.description or "").split()) if field else ""
    return text.split(". ")[0] or str(path[-1] if path else "")


def _group(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for arg in get_args(annotation):
        if found := _group(arg):
            return found
    return None
