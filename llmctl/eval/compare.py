"""Two models side by side, for a pull request: each score of both, the difference, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmctl.report.markdown import table

SURE = 0.05


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are (Holm 1979), in their order.

    With twenty tasks one of them is below 0.05 by luck alone; of the adjusted values none is, 19 times in 20.
    """
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    found, most = [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, (len(ps) - rank) * ps[i]))
        found[i] = most
    return found


def side_by_side(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a score that two models share: task, group, metric, both values, unit and, where they answered the same
    items, the difference with its interval, p and the adjusted p. Empty unless there are exactly two models.
    """
    if len(results["models"]) != 2:
        return []
    labels = [m["label"] for m in results["models"]]
    scores = {(s["task"], s["group"], s.get("metric"), s["model"]): s for s in results["scores"]}
    keys = dict.fromkeys((s["task"], s["group"], s.get("metric")) for s in results["scores"])
    paired = {c["task"]: c for c in results["paired"]}
    # All items together are no task of their own: counting them would punish the tasks.
    tasks = [task for task in paired if task != "all"]
    adjusted = dict(zip(tasks, holm([paired[k]["p"] for k in tasks]), strict=True))
    rows = []
    for task, group, metric in keys:
        first, second = (scores.get((task, group, metric, label)) for label in labels)
        if not first or not second or first["value"] is None or second["value"] is None:
            continue
        test = None if group else paired.get(task)
        row = {"task": task, "group": group, "metric": metric, "first": first, "second": second, "unit": first["unit"]}
        row["test"] = test
        row["adjusted"] = adjusted.get(task, test["p"]) if test else None
        rows.append(row)
    return rows


def verdict(row: Mapping[str, Any]) -> str:
    """`better`, `worse`, or nothing where chance explains the difference or no test was made."""
    if row["adjusted"] is None or row["adjusted"] >= SURE:
        return ""
    return "better" if (row["test"]["difference"] > 0) != lower_is_better(row["unit"]) else "worse"


def lower_is_better(unit: str) -> bool:
    """Losses and perplexities, by the unit of a score."""
    return "perplexity" in unit or unit in ("bits a byte", "nats a token", "bits_per_byte")


def markdown(results: Mapping[str, Any], name: Any, value: Any) -> str:
    """The table of two models. `name(task, group)` and `value(score)` write a task and a score."""
    rows = [r for r in side_by_side(results) if not r["group"] or r["task"] == "names"]
    first, second = (m["label"] for m in results["models"])
    cells = []
    for row in rows:
        cells.append(
            [
                name(row["task"], row["group"]),
                value(row["first"]),
                value(row["second"]),
                difference(row),
                p_value(row),
                verdict(row),
            ]
        )
    head = ["task", first, second, f"{second} against {first}", "p", ""]
    return table(head, cells) + "\n" + NOTE + "\n"


NOTE = (
    "Differences (of shares in points) with their 95 % intervals, item by item: McNemar's exact test for answers that "
    "are right or wrong, items exchanged at random for losses, document by document; p of the tasks adjusted for their "
    "number (Holm); better and worse where it is below 0.05."
)


def difference(row: Mapping[str, Any]) -> str:
    """Second against first: with its interval where the same items were answered."""
    test = row["test"]
    if test is None:
        change = row["second"]["value"] - row["first"]["value"]
        return f"{100 * change:+.1f}" if row["unit"] == "share" else f"{change:+.4f}"
    scale, digits = (100, 1) if row["unit"] == "share" else (1, 4)
    d, low, high = (scale * test[k] for k in ("difference", "low", "high"))
    return f"{d:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def p_value(row: Mapping[str, Any]) -> str:
    """The adjusted p as a person reads it."""
    p = row["adjusted"]
    return "" if p is None else f"{p:.2g}" if p >= 1e-4 else "< 0.0001"
