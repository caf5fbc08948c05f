"""The one place where a setting is defined: a typed field of a stage's `config.py`.

The YAML recipe, `--set`, `--dry-run`, the tables in the docs and the messages for mistakes all read these fields. The
string under a field is its documentation and should say what a larger or smaller value costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class InputOf:
    """Marks a field (a string or a list of strings) as the name of an artifact of one of `kinds`.

    `files` allows a path on disk, or an `hf:` name, in its place.
    """

    kinds: tuple[str, ...]
    files: bool = False


@dataclass(frozen=True)
class NoResult:
    """Marks a field that changes how fast or how chatty a stage is, not what it makes (workers, logging intervals)."""


class Settings(BaseModel):
    """A group of settings. Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True)


class StageSettings(Settings):
    """The settings of one stage: what it reads, what it makes, and how."""

    stage: ClassVar[str]
    """The command's name."""
    makes: ClassVar[str]
    """The kind of artifact it makes."""

    out: str = ""
    """The name of the artifact to make."""
    seed: int = 0
    """Where every random choice of the stage comes from."""

    @property
    def stage_name(self) -> str:
        """The command's name."""
        return type(self).stage

    @property
    def made_kind(self) -> str:
        """The kind of artifact the stage makes."""
        return type(self).makes

    def recorded(self, fingerprint: bool = False) -> dict[str, Any]:
        """Every setting, resolved. With `fingerprint`, only those that change the result, and not the name."""
        found = dump(self, fingerprint)
        if fingerprint:
            found.pop("out", None)
            for name, _ in self.input_fields():
                found.pop(name, None)  # what an input holds counts, by its digest; what it is called does not
        return found

    @classmethod
    def input_fields(cls) -> Iterator[tuple[str, InputOf]]:
        """The fields that name inputs."""
        for name, field in cls.model_fields.items():
            for mark in field.metadata:
                if isinstance(mark, InputOf):
                    yield name, mark

    def inputs(self) -> list[tuple[str, Sequence[str], bool]]:
        """(value, kinds, files allowed) of every input that is given."""
        found: list[tuple[str, Sequence[str], bool]] = []
        for name, mark in self.input_fields():
            value = getattr(self, name)
            for v in value if isinstance(value, list) else [value]:
                if v:
                    found.append((v, mark.kinds, mark.files))
        return found


def dump(settings: BaseModel, fingerprint: bool) -> dict[str, Any]:
    """The fields as JSON values; with `fingerprint`, without those marked `NoResult`."""
    found: dict[str, Any] = {}
    values = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        if fingerprint and any(isinstance(m, NoResult) for m in field.metadata):
            continue
        value = getattr(settings, name)
        found[name] = dump(value, fingerprint) if isinstance(value, BaseModel) else values[name]
    return found
