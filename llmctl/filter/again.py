"""Deciding again: a corpus that has its scores is filtered anew with other settings, without its pages.

What the corpus was made with stays unless it is said otherwise. Where only thresholds change, nothing is measured;
where a setting changes what is measured, the extracted texts are measured again, which leaves out the slow part.
Settings of extraction itself need the pages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from llmctl.errors import UserError
from llmctl.filter import scores
from llmctl.filter.config import FilterConfig
from llmctl.filter.measure import Measurer
from llmctl.filter.scores import Scored
from llmctl.filter.steps import runs
from llmctl.formats.document import Document
from llmctl.workspace import Artifact, Foreign

SETTINGS = "scores/settings.json"
_DOCUMENTS = 2000  # in a task: enough that starting it does not count, few enough that no core idles at the end
# What changes neither a value nor a decision.
_ASIDE = ("out", "seed", "pages", "tokenizer", "own", "exact", "minhash", "pii", "dropped_text", "scores", "strict")


@dataclass(frozen=True)
class ScoredShard:
    """Row groups of a file of scores. measured: their values are those of the settings; signed: so are their
    signatures.
    """

    number: int
    path: str
    groups: tuple[int, ...]
    documents: int
    measured: bool
    signed: bool

    def __len__(self) -> int:
        return self.documents

    def __str__(self) -> str:
        return f"shard {self.number} of the scores"

    @property
    def has_current_scores(self) -> bool:
        """Whether its scores can be taken over as they are."""
        return self.measured

    def table(self) -> pa.Table:
        """Its rows."""
        return scores.read(Path(self.path), self.groups)


def has_scores(source: Artifact | Foreign) -> bool:
    """Whether the input is a corpus that can be decided again."""
    return (source.path / SETTINGS).is_file()


def inherited(config: FilterConfig, source: Artifact | Foreign) -> tuple[FilterConfig, FilterConfig]:
    """(the settings of the new corpus, those that the scores were measured with): what was not said is as it was."""
    before = json.loads((source.path / SETTINGS).read_text(encoding="utf-8"))
    said = _said(config)
    return FilterConfig.model_validate(_merged(before, said)), FilterConfig.model_validate(before)


def divided(source: Artifact | Foreign, now: FilterConfig, before: FilterConfig) -> list[ScoredShard]:
    """The shards. UserError where the pages would be needed."""
    if now.extract != before.extract:
        raise UserError(
            "the extraction's settings cannot be changed from the scores of a corpus",
            str(source.path),
            f"filter the pages it was made of: llmctl filter {before.pages} ...",
        )
    measured, signed = same_measures(now, before), now.minhash == before.minhash
    shards: list[ScoredShard] = []
    for path in sorted((source.path / "scores").glob("*.parquet")):
        waiting: list[int] = []
        sizes = scores.groups(path)
        for i, _ in enumerate(sizes):
            waiting.append(i)
            size = sum(sizes[g] for g in waiting)
            if size >= _DOCUMENTS or i == len(sizes) - 1:
                place = (len(shards), str(path), tuple(waiting), size)
                shards.append(ScoredShard(*place, measured, measured and signed))
                waiting = []
    return shards


def same_measures(now: FilterConfig, before: FilterConfig) -> bool:
    """Whether the values measured with one are those of the other: only thresholds differ, or steps are off that do not
    rewrite the text.
    """
    for name in type(now).model_fields:
        new, old = getattr(now, name), getattr(before, name)
        if name in _ASIDE or not isinstance(new, BaseModel):
            continue
        on, was_on = runs(new), runs(old)
        if on != was_on and (name == "c4" or on):
            return False
        if not on:
            continue
        aside = {"enabled", *getattr(type(new), "thresholds", ())}
        if new.model_dump(exclude=aside) != old.model_dump(exclude=aside):
            return False
    return True


def unmeasured(shard: ScoredShard, measurer: Measurer) -> Scored:
    """The texts of a shard measured anew. What was dropped without a text keeps its reasons where they still hold."""
    table = shard.table()
    rows = table.select(["id", "dump", "url", "date", "file_path", "text"]).to_pylist()
    found = measurer(Document(**{**row, "text": row["text"] or ""}) for row in rows)
    for i, row in enumerate(rows):
        if row["text"] is None:
            _without_text(found, i, table, measurer)
    found.sizes.read[:] = table.column("bytes_read").to_numpy()
    return found


def _without_text(found: Scored, i: int, table: pa.Table, measurer: Measurer) -> None:
    """A page that was dropped before its text was extracted: only its address can be judged anew."""
    found.rows[i]["text"] = None
    for at, column in enumerate(measurer.columns):
        known = column.step == "extract" and column.name in table.column_names
        if known:
            found.values[i, at] = _number(table.column(column.name)[i].as_py())
        elif column.step != "url":
            found.values[i, at] = np.nan


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _said(settings: BaseModel) -> dict[str, Any]:
    """The settings that a person gave, without the defaults."""
    found: dict[str, Any] = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        found[name] = _said(value) if isinstance(value, BaseModel) else value
    return found


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        found[key] = _merged(found.get(key, {}), value) if isinstance(value, dict) else value
    return found
