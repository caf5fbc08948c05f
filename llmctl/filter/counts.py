"""The funnel: documents and bytes after each step, and what each rule dropped. Parts of it add up."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class Counts:
    """What happened to the documents of one shard, or of all. `as_dict` is plain data for JSON.

    documents, bytes: read. steps: name -> {documents, bytes (after the step), dropped: rule -> documents}.
    replaced: kind of personal data -> replacements. languages: of the documents kept. tokens: of their texts.
    """

    def __init__(self, steps: Iterable[str] = ()) -> None:
        self.as_dict: dict[str, Any] = {
            "documents": 0,
            "bytes": 0,
            "steps": {name: {"documents": 0, "bytes": 0, "dropped": {}} for name in steps},
            "replaced": {},
            "languages": {},
            "tokens": 0,
        }

    @classmethod
    def load(cls, folder: Path) -> Counts:
        """The counts of a finished shard."""
        found = cls()
        found.as_dict = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        return found

    def read(self, documents: int, size: int) -> None:
        """Documents of `size` bytes came in."""
        add(self.as_dict, {"documents": documents, "bytes": size})

    def passed(self, step: str, size: int, documents: int = 1) -> None:
        """Documents passed a step; `size` is their bytes after it."""
        add(self.as_dict["steps"], {step: {"documents": documents, "bytes": size}})

    def dropped(self, step: str, rule: str, documents: int = 1) -> None:
        """A rule of a step dropped documents."""
        add(self.as_dict["steps"], {step: {"dropped": {f"{step}.{rule}": documents}}})

    def replaced(self, kinds: Mapping[str, int]) -> None:
        """Personal data was replaced in a document."""
        add(self.as_dict["replaced"], kinds)

    def kept(self, language: str, tokens: int | None) -> None:
        """A document is in the corpus."""
        add(self.as_dict, {"languages": {language or "unknown": 1}, "tokens": tokens or 0})

    def rules(self) -> dict[str, int]:
        """Rule -> documents dropped, the most first."""
        found = {rule: n for step in self.as_dict["steps"].values() for rule, n in step["dropped"].items()}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def last(self) -> tuple[int, int]:
        """(documents, bytes) after the last step."""
        after = [(s["documents"], s["bytes"]) for s in self.as_dict["steps"].values()]
        return after[-1] if after else (self.as_dict["documents"], self.as_dict["bytes"])


def add(total: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Add the numbers of `part` to those of `total`, group by group."""
    for key, value in part.items():
        if isinstance(value, Mapping):
            add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


def funnel_rows(counts: Mapping[str, Any], most: int = 4) -> list[tuple[str, int, int, str]]:
    """(step, documents after it, bytes, the rules that dropped most) of the plain data of `Counts`, the input first."""
    rows = [("read", counts["documents"], counts["bytes"], "")]
    for name, step in counts["steps"].items():
        rules = sorted(step["dropped"].items(), key=lambda item: (-item[1], item[0]))
        by = [f"{rule.partition('.')[2]} {n:,}" for rule, n in rules[:most]] + ["..."] * (len(rules) > most)
        rows.append((name, step["documents"], step["bytes"], ", ".join(by)))
    return rows
