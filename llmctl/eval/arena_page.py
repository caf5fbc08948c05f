"""The page and the Markdown of an arena: ratings with intervals, the judge's biases, and the games themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.eval.arena_judges import said
from llmctl.eval.arena_prompts import Prompt
from llmctl.report import html
from llmctl.report.markdown import table

Row = Mapping[str, Any]
_ALL = 1200  # points of Elo: odds of a thousand to one, beyond which a term has no finite value to speak of
_MOST_PROMPTS = 60  # games.jsonl and items/ have them all


def markdown(results: Row) -> str:
    """The ratings as a table, and what is known about the judge."""
    rows = [[r["model"], *_cells(r, results)] for r in results["ratings"]["rows"]]
    lines = [table(_columns(results), rows), *(f"- {line}" for line in biases(results)), ""]
    return "\n".join(lines)


def _columns(results: Row) -> list[str]:
    controlled = ["length-controlled"] if results["length_controlled"] else []
    return ["model", "rating", *controlled, "points", "characters an answer"]


def _cells(row: Row, results: Row) -> list[str]:
    other = _row_of(results["length_controlled"], row["model"])
    length = next(m["mean_length"] for m in results["models"] if m["label"] == row["model"])
    shown = [f"{r['rating']:.0f} ({r['low']:.0f} – {r['high']:.0f})" for r in (row, other) if r]
    return [*shown, f"{100 * row['points']:.1f} %", f"{length:,.0f}"]


def biases(results: Row) -> list[str]:
    """What is known about the judge, a sentence each."""
    found = []
    if bias := results["position"]:
        found.append(
            f"Of {bias['pairs']:,} pairs judged in both orders {bias['consistent']:,} had one outcome "
            f"({100 * bias['low']:.0f} to {100 * bias['high']:.0f} %); where the order decided, it favoured the answer "
            f"shown first {bias['first']:,} times and the second {bias['second']:,} times."
        )
    term = results["ratings"]["terms"].get("position")
    if term:
        found.append(f"Being shown first was worth {_points(term)} of Elo.")
    if controlled := results["length_controlled"]:
        found.append(f"Writing much more was worth {_points(controlled['terms']['length'])} of Elo to this judge.")
    return found


def write_arena_report(
    folder: Path,
    results: Row,
    prompts: Sequence[Prompt],
    answers: Mapping[str, Sequence[Row]],
    games: Sequence[Row],
) -> None:
    """Write `report.html`. `answers` are each model's, in the order of `prompts`; `games` are the judged rows."""
    parts = [
        html.section("Ratings", _ratings(results), *(html.paragraph(b) for b in biases(results))),
        html.section("Who took points from whom", _points_table(results)),
        html.section("The games", _games(prompts, answers, games)),
        html.section("How this was measured", *_method(results)),
    ]
    labels = ", ".join(m["label"] for m in results["models"])
    told = (
        f"{results['games']:,} games on {results['prompts']['count']:,} prompts, judged by {results['judge']['name']}"
    )
    html.write_page(folder / "report.html", f"Arena: {labels}", parts, told)


def _ratings(results: Row) -> html.Html:
    rows = []
    for r in results["ratings"]["rows"]:
        other = _row_of(results["length_controlled"], r["model"])
        shown = [html.interval(f"{x['rating']:.0f}", f"{x['low']:.0f}", f"{x['high']:.0f}") for x in (r, other) if x]
        length = next(m["mean_length"] for m in results["models"] if m["label"] == r["model"])
        share = f"{100 * r['points']:.1f} % of {r['games']:,} games"
        rows.append([r["model"], *shown, share, f"{length:,.0f}"])
    caption = "Elo's scale, mean 1000; 400 points are odds of ten to one; in small type the 95 % interval"
    return html.table(_columns(results), rows, caption)


def _points_table(results: Row) -> html.Html:
    labels = [m["label"] for m in results["models"]]
    rows = [
        [label, *("" if v is None else f"{100 * v:.1f}" for v in mine)]
        for label, mine in zip(labels, results["points"], strict=True)
    ]
    return html.table(["points of the row, %", *(f"against {label}" for label in labels)], rows)


def _games(prompts: Sequence[Prompt], answers: Mapping[str, Sequence[Row]], games: Sequence[Row]) -> html.Html:
    blocks = []
    for i, prompt in enumerate(prompts[:_MOST_PROMPTS]):
        mine = [g for g in games if g["prompt"] == prompt.id]
        points = {label: _share(label, mine) for label in answers}
        best = max((p for p in points.values() if p is not None), default=None)
        winners = [label for label, p in points.items() if p is not None and p == best]
        replies = [
            html.Reply(label, str(given[i]["text"]), label in winners, _note(points[label]), _fared(label, winners))
            for label, given in answers.items()
        ]
        words = [f"{g['first']} before {g['second']}: {g['why']}" for g in mine if g["why"]]
        judged = html.folded("what the judge said", *(html.tag("pre", s) for s in words)) if words else html.Html("")
        sort = f"{winners[0]} wins" if len(winners) == 1 else "nobody wins alone"
        blocks.append(
            (
                sort if len(answers) < 6 else "games",
                html.example(html.Example(said(prompt.messages), "", replies), judged),
            )
        )
    return html.filtered("games", blocks)


def _share(label: str, games: Sequence[Row]) -> float | None:
    """The share of the points that a model took on one prompt."""
    scores = [
        g["score"] if g["first"] == label else 1 - g["score"]
        for g in games
        if g["score"] is not None and label in (g["first"], g["second"])
    ]
    return sum(scores) / len(scores) if scores else None


def _fared(label: str, winners: Sequence[str]) -> str:
    if label not in winners:
        return "lost"
    return "won" if len(winners) == 1 else "drew"


def _note(points: float | None) -> str:
    return "not judged" if points is None else f"{100 * points:.0f} % of the points"


def _method(results: Row) -> list[html.Html]:
    rows = [("seed", str(results["seed"])), *((k, str(v)) for k, v in results["settings"].items())]
    rows += [("SHA-256 of the prompts", results["prompts"]["sha256"])]
    models = [(m["label"], m["parameters"], m["digest"][:12]) for m in results["models"]]
    told = (
        "Ratings are the strengths that make the games likeliest (Bradley and Terry), with a term for being shown "
        "first where both orders were judged; the length-controlled ones also have a term in the difference of "
        "lengths, left out when they are read off. Intervals resample whole prompts."
    )
    return [
        html.paragraph(told),
        *(html.paragraph(n) for n in results["notes"]),
        html.table(("model", "parameters", "digest"), models),
        html.folded("Settings", html.table(("", ""), rows)),
    ]


def _row_of(found: Row | None, model: str) -> Row | None:
    return next(r for r in found["rows"] if r["model"] == model) if found else None


def _points(term: Row) -> str:
    if abs(term["value"]) > _ALL:
        return f"more than {math.copysign(_ALL, term['value']):+.0f} points (it decided nearly every game)"
    return f"{term['value']:+.0f} points ({term['low']:+.0f} to {term['high']:+.0f})"
