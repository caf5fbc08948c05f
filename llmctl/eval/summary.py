"""The results as Markdown: for a pull request, a model card, or a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmctl.eval import compare
from llmctl.eval.compare import side_by_side
from llmctl.eval.questions import LOSS, PAIRS
from llmctl.eval.scores import ALL
from llmctl.report.markdown import table

NAMES = {ALL: "all items", LOSS: "bits per byte", PAIRS: "pairs of answers"}


def markdown(results: Mapping[str, Any]) -> str:
    """A table of the scores, models as columns, and a line for each comparison of two models.

    Two models stand side by side with their differences. Of the groups only known and made-up names are told apart:
    they ask for opposite things.
    """
    told = [f"- {compared(c)}" for c in results["paired"] if c["task"] == ALL]
    if side_by_side(results):
        return "\n".join([compare.markdown(results, task_name, value), *told]).rstrip() + "\n"
    labels = [m["label"] for m in results["models"]]
    shown = [[task_name(*key), *cells] for key, cells in score_rows(results) if not key[1] or key[0] == "names"]
    lines = [table(["task", *labels], shown)]
    return "\n".join([*lines, *told]).rstrip() + "\n"


def score_rows(results: Mapping[str, Any]) -> list[tuple[tuple[str, str], list[str]]]:
    """((task, group), a cell for each model) in the order in which the scores were made."""
    by = {(s["task"], s["group"], s["model"]): s for s in results["scores"]}
    keys = dict.fromkeys((s["task"], s["group"]) for s in results["scores"])
    labels = [m["label"] for m in results["models"]]
    return [(key, [value(by.get((*key, label))) for label in labels]) for key in keys]


def value(score: Mapping[str, Any] | None) -> str:
    """A score with its interval; empty where the model was not asked."""
    if score is None or score["value"] is None:
        return ""
    if score["unit"] != "share":
        ends = "" if score["low"] is None else f" ({score['low']:.4f} – {score['high']:.4f})"
        return f"{score['value']:.4f}{ends}"
    return f"{percent(score['value'])} % ({percent(score['low'])} – {percent(score['high'])})"


def compared(c: Mapping[str, Any]) -> str:
    """One comparison as a sentence."""
    sure = f"p = {c['p']:.2g}" if c["p"] >= 1e-4 else "p < 0.0001"
    return (
        f"{c['second']} against {c['first']}: {100 * c['difference']:+.1f} points "
        f"({100 * c['low']:+.1f} to {100 * c['high']:+.1f}) on {c['n']:,} items, {sure}"
    )


def task_name(task: str, group: str = "") -> str:
    """A task as a person reads it."""
    name = NAMES.get(task, task)
    return f"{name}: {group}" if group else name


def percent(share: float | None) -> str:
    """A share as per cent, without its sign."""
    return "" if share is None else f"{100 * share:.1f}"


def models_of(results: Mapping[str, Any], role: str) -> Sequence[Mapping[str, Any]]:
    """The models that write ("language") or score ("reward") answers."""
    return [m for m in results["models"] if m["role"] == role]
