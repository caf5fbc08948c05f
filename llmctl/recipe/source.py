"""YAML read with the line of every key, so that a mistake can be shown where it was typed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmctl.errors import UserError

KeyPath = tuple[str | int, ...]


@dataclass
class Source:
    """A parsed document: its `data`, and the line (from 1) of every key path in it."""

    name: str
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int | None:
        """The line of `path`, or of its nearest known ancestor."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def where(self, path: KeyPath) -> str:
        """`file:line` for a message."""
        line = self.line(path)
        return f"{self.name}:{line}" if line else self.name


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its traps: `1e-3` is a number, `on` and `no` are words."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:[0-9][0-9_]*)?\.[0-9_]+(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*\.?(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\."
        r"|\.inf|\.nan)$"
    ),
    list("-+0123456789."),
)


def parse(text: str, name: str) -> Source:
    """Parse YAML `text`. UserError with the line where it is not YAML, or where a key stands twice."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            source = Source(name, loader.construct_document(node) if node else None)
        finally:
            loader.dispose()
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        what = getattr(e, "problem", None) or str(e).splitlines()[0]
        raise UserError(f"not YAML: {what}", f"{name}:{mark.line + 1}" if mark else name) from e
    if node is not None:
        _note_lines(node, (), source)
    return source


def read(path: Path) -> Source:
    """Read and parse a YAML file."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as e:
        raise UserError("it is not UTF-8 text", str(path)) from e
    except OSError as e:
        raise UserError(f"cannot read it: {e.strerror}", str(path), "check the path") from e


def _note_lines(node: yaml.Node, path: KeyPath, source: Source) -> None:
    source.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise UserError(f"the key {name!r} stands twice", f"{source.name}:{key.start_mark.line + 1}")
            seen.add(name)
            source.lines[path + (name,)] = key.start_mark.line + 1
            _note_lines(value, path + (name,), source)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _note_lines(value, path + (i,), source)
