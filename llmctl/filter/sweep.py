"""What other thresholds would keep: counted from the scores of a corpus, without making anything."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.filter import scores
from llmctl.filter.again import has_scores, inherited, same_measures
from llmctl.filter.config import FilterConfig
from llmctl.filter.decide import Column, Decision, decide
from llmctl.filter.row import Rule
from llmctl.filter.steps import STEPS, wanted_steps
from llmctl.recipe.overrides import apply
from llmctl.workspace import Artifact, Foreign

_MOST = 1000  # combinations; each is a pass over the scores


@dataclass
class Swept:
    """What one combination of settings keeps, before duplicates are taken out: documents, and bytes of their texts."""

    settings: dict[str, Any]
    documents: int = 0
    kept: int = 0
    bytes: int = 0
    dropped: dict[str, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self)


def sweep(config: FilterConfig, source: Artifact | Foreign, asked: Sequence[str]) -> list[Swept]:
    """One result for every combination of the values in `asked` ("gopher_quality.alpha=0.6,0.7")."""
    if not has_scores(source):
        raise UserError("it has no scores to sweep over", str(source.path), "name a corpus that filter made")
    now, before = inherited(config, source)
    grid = list(itertools.product(*[_choices(a) for a in asked]))
    if len(grid) > _MOST:
        raise UserError(f"that is {len(grid):,} combinations", fix=f"sweep over at most {_MOST:,}")
    rules: dict[tuple[str, str], Sequence[Rule]] = {}
    found = []
    for settings in grid:
        tried = _with(now, settings, before)
        columns = [Column(name, rule) for name in wanted_steps(tried) for rule in _rules(tried, name, rules)]
        found.append((Swept(dict(s.split("=", 1) for s in settings)), columns))
    for path in sorted((source.path / "scores").glob("*.parquet")):
        _add(path, found)
    return [swept for swept, _ in found]


def show(found: Sequence[Swept], console: Console) -> None:
    """A line a combination, on stdout."""
    for swept in found:
        settings = "  ".join(f"{key}={value}" for key, value in swept.settings.items())
        share = swept.kept / swept.documents if swept.documents else 0.0
        console.print(f"{settings}  {swept.kept:,} of {swept.documents:,} documents ({share:.1%})  "
                      f"{swept.bytes / 1e6:,.2f} MB")  # fmt: skip
    console.info("before duplicates are taken out; make one with: llmctl filter CORPUS -o NAME --set KEY=VALUE")


def _choices(asked: str) -> list[str]:
    """`a.b=1,2` -> [`a.b=1`, `a.b=2`]."""
    key, equals, values = asked.partition("=")
    if not equals or not values:
        raise UserError(f"cannot read --sweep {asked!r}", fix="write --sweep gopher_quality.alpha=0.6,0.7,0.8")
    return [f"{key}={value}" for value in values.split(",")]


def _with(now: FilterConfig, settings: Sequence[str], before: FilterConfig) -> FilterConfig:
    try:
        tried = FilterConfig.model_validate(apply(now.model_dump(mode="json"), list(settings)))
    except ValidationError as e:
        first = e.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", " ".join(settings)) from e
    if not same_measures(tried, before):
        raise UserError(
            "that changes what is measured, not only what is dropped",
            " ".join(settings),
            "make a corpus with it instead: llmctl filter CORPUS --set ...",
        )
    return tried


def _rules(config: FilterConfig, name: str, known: dict[tuple[str, str], Sequence[Rule]]) -> Sequence[Rule]:
    """The rules of a step. Steps read lists and models, so each is made once for the same settings."""
    settings = getattr(config, name)
    key = (name, json.dumps(settings.model_dump(mode="json")))
    if key not in known:
        known[key] = STEPS[name](settings).rules
    return known[key]


def _add(path: Path, found: Sequence[tuple[Swept, Sequence[Column]]]) -> None:
    """Add what the documents of one file come to."""
    names = sorted({column.name for _, columns in found for column in columns})
    for table in scores.batches(path, [*names, "bytes_clean"]):
        values, sizes = scores.values_of(table, names), table.column("bytes_clean").to_numpy()
        for swept, columns in found:
            decision = decide(columns, values[:, [names.index(column.name) for column in columns]])
            swept.documents += len(table)
            swept.kept += len(decision.kept)
            swept.bytes += int(sizes[decision.kept].sum())
            swept.dropped = _added(swept.dropped or {}, decision)


def _added(dropped: dict[str, int], decision: Decision) -> dict[str, int]:
    for rule, documents in zip(*np.unique(decision.first[decision.first >= 0], return_counts=True), strict=True):
        name = decision.columns[rule].name
        dropped[name] = dropped.get(name, 0) + int(documents)
    return dropped
