"""The page of a whole recipe: what each stage took and changed, how the training went, what the models answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmctl.report import html
from llmctl.report.plots import curves


def write_run_report(folder: Path, title: str, steps: list[dict[str, Any]]) -> Path:
    """Write `folder/report.html` and return its path.

    A step is plain data, every key optional: `stage`, `name` (the artifact's), `seconds`, `in` and `out` (short
    strings), `headline` {"label", "before", "after", "unit"}, `metrics` (rows of metrics.jsonl), `figures` (numbers, or
    groups of them), and `answers`, a list of {"question", "answer", "expected", "correct"}; "correct" may be absent.
    """
    took = sum(float(s.get("seconds") or 0) for s in steps)
    parts = [
        html.section("What each stage did", _stages(steps)),
        html.section("How the training went", *(_training(s) for s in steps)),
        html.section("Answers", *(_answers(s) for s in steps)),
        html.section("Every figure", *(_figures(s) for s in steps)),
    ]
    return html.write_page(folder / "report.html", title, parts, f"{len(steps)} steps, {seconds(took)}")


def headline(found: dict[str, Any] | None) -> str:
    """`label: before -> after`, or `label: after` where nothing came before; empty without a headline."""
    if not found or found.get("after") is None:
        return ""
    unit = str(found.get("unit") or "")
    before = f"{_figure(found['before'])} → " if found.get("before") is not None else ""
    return f"{found.get('label', '')}: {before}{_figure(found['after'])} {unit}".strip()


def seconds(value: float) -> str:
    """A duration as a person says it."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _stages(steps: Sequence[dict[str, Any]]) -> html.Html:
    rows = [
        (
            s.get("stage", ""),
            s.get("name", ""),
            html.tag("span", seconds(float(s.get("seconds") or 0)), cls="line"),
            s.get("in", ""),
            s.get("out", ""),
            "; ".join(filter(None, map(headline, [s.get("headline"), *(s.get("figures") or {}).get("more", [])]))),
        )
        for s in steps
    ]
    return html.table(("stage", "makes", "time", "in", "out", "what changed"), rows) if rows else html.Html("")


def _training(step: dict[str, Any]) -> html.Html:
    drawn = curves(step.get("metrics") or [], f"{step.get('stage', '')}-{step.get('name', '')}-")
    if not drawn:
        return html.Html("")
    return html.Html(html.tag("h3", _title(step)) + html.charts(drawn))


def _answers(step: dict[str, Any]) -> html.Html:
    name = str(step.get("name") or step.get("stage"))
    found = []
    for a in step.get("answers") or []:
        question, reply = str(a.get("question", "")), str(a.get("answer", ""))
        if a.get("correct") is None:  # a chat answer that nobody has judged
            found.append(html.folded(question, html.tag("pre", reply), opened=True))
        else:
            by = html.Reply(name, reply, bool(a["correct"]))
            found.append(html.example(html.Example(question, str(a.get("expected") or ""), [by])))
    return html.folded(_title(step), *found, opened=True) if found else html.Html("")


def _figures(step: dict[str, Any]) -> html.Html:
    rows = [
        (k, v) for k, v in _flat(step.get("figures") or {}) if k.split(".")[0] not in ("in", "out", "headline", "more")
    ]
    return html.folded(_title(step), html.table(("figure", ""), rows)) if rows else html.Html("")


def _flat(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Groups of figures opened, with dotted names."""
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float, str)):
            yield f"{prefix}{key}", value


def _title(step: dict[str, Any]) -> str:
    return f"{step.get('stage', '')}: {step.get('name', '')}"


def _figure(value: Any) -> str:
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.4g}"
    return f"{value:,.0f}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
