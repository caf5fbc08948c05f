"""From answers to scores: shares with intervals, and models compared on the same items. Plain data in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from math import sqrt
from typing import Any

from llmctl.eval.questions import LOSS, PAIRS
from llmctl.eval.task_scores import OVERALL
from llmctl.eval.uncertainty import difference
from llmctl.verify.statistics import paired, wilson

Row = dict[str, Any]
ALL = "all"


def scores(model: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The scores of one model: over all items, of each task, and of each group where a task has several."""
    found = [_score(model, ALL, "", rows)]
    for task in dict.fromkeys(r["task"] for r in rows):
        mine = [r for r in rows if r["task"] == task]
        found.append(_score(model, task, "", mine))
        groups = sorted({r["group"] for r in mine} - {""})
        if len(groups) > 1:
            found += [_score(model, task, g, [r for r in mine if r["group"] == g]) for g in groups]
    return found


def share(model: str, task: str, correct: int, n: int) -> dict[str, Any]:
    """A score that is a share, with its 95 % interval."""
    low, high = wilson(correct, n)
    return {
        "model": model,
        "task": task,
        "group": "",
        "n": n,
        "correct": correct,
        "value": correct / n if n else None,
        "stderr": sqrt(correct / n * (1 - correct / n) / (n - 1)) if n > 1 else None,
        "low": low,
        "high": high,
        "unit": "share",
    }


def _score(model: str, task: str, group: str, rows: Sequence[Row]) -> dict[str, Any]:
    n = len(rows)
    formatted = share(model, task, sum(r["formatted"] for r in rows), n)
    return {
        **share(model, task, sum(r["correct"] for r in rows), n),
        "group": group,
        "formatted": {k: formatted[k] for k in ("correct", "value", "low", "high")},
        "refused": sum(r["refused"] for r in rows),
        "cut_off": sum(r["finish"] == "length" for r in rows),
        "mean_tokens": sum(r["tokens"] for r in rows) / n if n else None,
    }


def comparisons(
    rows: Mapping[str, Sequence[Row]], found: Sequence[Mapping[str, Any]] = (), seed: int = 0
) -> list[dict[str, Any]]:
    """Every two models that were asked the same, over all items and on each task. `rows` are the models' items; the
    scores `found` say which metric of an item is the task's.
    """
    metrics = {(s["model"], s["task"]): s.get("metric") for s in found} | {(m, LOSS): LOSS for m in rows}
    by = {model: _by_task(mine) for model, mine in rows.items()}
    made = []
    for (a, first), (b, second) in combinations(by.items(), 2):
        for task in first:
            metric = metrics.get((a, task))
            one, other = _values(first[task], metric), _values(second.get(task, []), metric)
            # The last document may be cut off in another place by another tokenizer; items are all there or others.
            ids = [i for i in one if i in other]
            if ids and (task == LOSS or list(one) == list(other)):
                result = _difference([one[i] for i in ids], [other[i] for i in ids], metric, seed)
                made += [{"first": a, "second": b, "task": task, **result}] if result else []
    return made


def _by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """All items together first; task files ask items of another sort."""
    asked = [r for r in rows if r.get("check")]
    found: dict[str, list[Row]] = {ALL: asked} if asked else {}
    for r in rows:
        found.setdefault(r["task"], []).append(r)
    return found


def _values(rows: Sequence[Row], metric: str | None) -> dict[tuple[str, str], Any]:
    """What each item adds to the task's score."""
    if metric is None or any("metrics" not in r for r in rows):
        return {(r["task"], r["id"]): float(r["correct"]) for r in rows if r.get("correct") is not None}
    name, _, chain = metric.partition(",")  # lm-evaluation-harness has a row for each of its filters
    mine = [(r, name if "filter" in r else metric) for r in rows if r.get("filter") in (None, chain or "none")]
    return {(r["task"], r["id"]): r["metrics"].get(key) for r, key in mine}


def _difference(first: Sequence[Any], second: Sequence[Any], metric: str | None, seed: int) -> dict[str, Any] | None:
    """By McNemar's test where an item is right or wrong, else by resampling; None where nothing can be said."""
    if any(v is None for v in (*first, *second)):
        return None
    name = (metric or "").partition(",")[0]
    if name not in OVERALL and all(v in (0.0, 1.0) for v in (*first, *second)):
        return asdict(paired([bool(v) for v in first], [bool(v) for v in second])) | {"unit": "share"}
    figure, unit = OVERALL.get(name, (lambda x: x.mean(1), "share"))
    return difference(first, second, figure, seed) | {"unit": unit} if len(first) > 1 else None


def headline(facts: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figure that a recipe's table shows: from the first model (that was taught to chat) to the last."""
    values = {(s["model"], s["task"]): s["value"] for s in found if not s["group"]}
    for role, task, label, scale, unit, digits in (
        ("language", ALL, "held-out answers right", 100, "%", 1),
        ("reward", PAIRS, "held-out pairs right", 100, "%", 1),
        ("language", LOSS, "bits per byte", 1, "", 4),
    ):
        asked = [m for m in facts if m["role"] == role and values.get((m["label"], task)) is not None]
        if asked:
            last = asked[-1]["label"]
            chatting = [m["label"] for m in asked if m["chats"] and m["label"] != last]
            before = (chatting if task == ALL and chatting else [m["label"] for m in asked])[0]
            shown = {m: round(scale * values[m, task], digits) for m in (before, last)}
            return {
                "label": label,
                "before": shown[before] if before != last else None,
                "after": shown[last],
                "unit": unit,
            }
    first = next((s for s in found if s["value"] is not None), None)
    if first is not None:
        mine = [s["value"] for s in found if (s["task"], s["group"]) == (first["task"], "")]
        scale, unit = (100, "%") if first["unit"] == "share" else (1, first["unit"])
        before, after = (round(scale * mine[i], 4) for i in (0, -1))
        return {"label": first["task"], "before": before if len(mine) > 1 else None, "after": after, "unit": unit}
    return {"label": "models measured", "before": None, "after": len(facts), "unit": ""}


def figures(results: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's figures: the headline, and each score under `model/task` (shares in per cent).

    Of the groups only those of `names` are figures of their own: they ask for opposite things.
    """
    found: dict[str, Any] = {"headline": results["headline"]}
    asked, models = results["data"]["items"]["count"], len(results["models"])
    shown = [s for s in results["scores"] if s["value"] is not None and (not s["group"] or s["task"] == "names")]
    found["in"] = f"{models} model{'s' if models != 1 else ''}, {asked:,} held-out items"
    found["out"] = f"{len(shown):,} scores"
    for s in shown:
        name = f"{s['model']}/{s['task']}" + (f" {s['group']}" if s["group"] else "")
        found[name] = round(100 * s["value"], 3) if s["unit"] == "share" else round(s["value"], 5)
    found["more"] = _names(results["models"], found)
    return found


def _names(models: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Refusals of made-up names beside answers on known ones, of the first model and the last: each alone is easy."""
    more = []
    for group, label in (("made-up", "made-up names refused"), ("known", "known names answered")):
        values = [found[key] for m in models if (key := f"{m['label']}/names {group}") in found]
        if values:
            before = values[0] if len(values) > 1 else None
            more.append({"label": label, "before": before, "after": values[-1], "unit": "%"})
    return more
