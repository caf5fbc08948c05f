"""Bounds that a person sets for a report, so that CI can stop at a model that has become worse: exit code 3."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError, nearest

if TYPE_CHECKING:
    from llmctl.eval.config import EvalConfig
    from llmctl.workspace import Artifact

_BOUND = re.compile(r"(?P<name>[^=]+)=(?P<value>[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)(?P<percent>%?)\Z")

_ENDS = {"value": "", "low": " low", "high": " high"}

# model -> name of a score -> (value, whether it is a share)
Scores = dict[str, dict[str, tuple[float, bool]]]


@dataclass(frozen=True)
class Bound:
    """A score that a model has to reach or, `above`, to stay under."""

    name: str
    """`TASK`, of the last model that has it, or `MODEL/TASK`."""
    value: float
    above: bool


def parse(text: str, above: bool = False) -> Bound:
    """`TASK=VALUE` or `MODEL/TASK=VALUE`, the value a number or a percentage. ValueError for anything else."""
    found = _BOUND.match(text.strip())
    try:
        value = float(found["value"]) if found else math.nan
    except ValueError:
        value = math.nan
    if not found or math.isnan(value):
        raise ValueError(f"{text!r} is no bound; write TASK=VALUE, such as sums=80% or chat/bits_per_byte=1.2")
    return Bound(found["name"].strip(), value / 100 if found["percent"] else value, above)


def check(config: EvalConfig, report: Artifact) -> list[str]:
    """A line for each bound that the report misses. UserError for one on a score that the report does not have."""
    bounds = [parse(t) for t in config.fail_below] + [parse(t, above=True) for t in config.fail_above]
    if not bounds:
        return []
    return missed(bounds, scores_of(json.loads(report.file("results.json").read_text(encoding="utf-8"))))


def scores_of(results: Mapping[str, Any]) -> Scores:
    """Every score by model and name: `TASK`, `TASK GROUP`, and `TASK:METRIC` where a task has several metrics.

    Of a score with an interval also `... low` and `... high`, its ends. Also an arena's `rating`, and a scaling law's
    `held_back_error` (its size).
    """
    found: Scores = {m["label"]: {} for m in results.get("models", [])}
    for s in results.get("scores", []):
        if s["value"] is not None:
            names = [f"{s['task']} {s['group']}" if s["group"] else s["task"]]
            names += [f"{s['task']}:{s['metric']}"] if s.get("metric") else []
            for name in names:  # of several metrics the first one is the task's
                for key, behind in _ENDS.items():
                    if s.get(key) is not None:
                        shown = float(s[key]), s["unit"] == "share"
                        found.setdefault(s["model"], {}).setdefault(name + behind, shown)
    for r in (results.get("ratings") or {}).get("rows", []):
        found[r["model"]]["rating"] = float(r["rating"]), False
    if held := results.get("held_back"):
        found[""] = {"held_back_error": (abs(float(held["error"])), True)}
    return found


def missed(bounds: Sequence[Bound], scores: Scores) -> list[str]:
    """What is on the wrong side of its bound, a line each."""
    lines = []
    for b in bounds:
        value, share = _score(b.name, scores)
        if share and b.value > 1:
            raise UserError(f"{b.name}={b.value:g}: a share lies between 0 and 1", fix=f"write {b.name}={b.value:g}%")
        if (value > b.value) if b.above else (value < b.value):
            word = "above" if b.above else "below"
            lines.append(f"{b.name} is {_shown(value, share)}, {word} {_shown(b.value, share)}")
    return lines


def _score(name: str, scores: Scores) -> tuple[float, bool]:
    """The score that a bound names. Names of models and of tasks may hold slashes themselves."""
    for model, mine in reversed(scores.items()):
        for task in (name, name.removeprefix(f"{model}/")):
            if task in mine:
                return mine[task]
    known = list(dict.fromkeys(t for mine in scores.values() for t in mine if not t.endswith((" low", " high"))))
    close = nearest(name.rpartition("/")[2], known)
    raise UserError(f"no score {name!r}{close}", "fail_below", "scores: " + (", ".join(known) or "none"))


def _shown(value: float, share: bool) -> str:
    return f"{100 * value:.4g} %" if share else f"{value:.5g}"
