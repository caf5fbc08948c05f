"""`report.html` of a corpus: the funnel, and for every rule what it measured, what it alone drops, and documents on
both sides of its threshold, so that a person sees what a threshold does before changing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from llmctl.filter import scores
from llmctl.filter.counts import Counts, funnel_rows
from llmctl.filter.decide import Column, decide
from llmctl.report import html
from llmctl.report.histogram import histogram

_SAMPLE = 50_000  # values in a histogram
_BINS = 40
_NEAR = 3  # documents on each side
_EXCERPT = 700  # characters


@dataclass(frozen=True, order=True)
class Near:
    """A document close to a threshold: how many other rules drop it, how close, its value, and where it is."""

    others: int
    distance: float
    value: float
    file: int
    group: int
    row: int


@dataclass
class RuleView:
    """What one rule did: documents it fails, fails first, fails alone; and those near its threshold."""

    column: Column
    fails: int = 0
    first: int = 0
    alone: int = 0
    sample: list[np.ndarray] = field(default_factory=list)
    dropped: list[Near] = field(default_factory=list)
    kept: list[Near] = field(default_factory=list)


def write_page(folder: Path, counts: Counts, columns: Sequence[Column], kept: int, size: int) -> None:
    """`report.html` in the corpus folder, from its counts and, where they are kept, its scores."""
    files = sorted((folder / "scores").glob("*.parquet"))
    parts = [_funnel(counts, kept, size)]
    if files:
        parts.append(_rules(files, columns))
    html.write_page(folder / "report.html", "What became of the documents", parts, "read, dropped, kept, and why")


def _funnel(counts: Counts, kept: int, size: int) -> html.Html:
    found = counts.as_dict
    rows = [
        (step, documents, f"{bytes_ / 1e6:,.2f} MB", _share(documents, found["documents"]), by)
        for step, documents, bytes_, by in funnel_rows(found, most=6)
    ]
    head = html.paragraph(f"{found['documents']:,} documents read, {kept:,} kept ({size / 1e6:,.2f} MB of text).")
    return html.section("Funnel", head, html.table(("after", "documents", "text", "left", "dropped by"), rows))


def _share(part: int, whole: int) -> html.Html:
    percent = 100 * part / whole if whole else 0.0
    return html.Html(f'{percent:.1f} %<span class="meter"><i style="width:{percent:.1f}%"></i></span>')


def _rules(files: Sequence[Path], columns: Sequence[Column]) -> html.Html:
    views = _views(files, columns)
    texts = _texts(files, [near for view in views for near in (*view.dropped, *view.kept)])
    shown = [_rule(view, texts) for view in views if view.sample and view.column.rule.threshold is not None]
    note = html.paragraph(
        "A rule's picture is of the values it measured (bar heights are square roots of counts); the line is its "
        "threshold. “Alone” counts the documents that this rule drops and no other would."
    )
    return html.section("Rules", note, *shown)


def _views(files: Sequence[Path], columns: Sequence[Column]) -> list[RuleView]:
    views, names = [RuleView(column) for column in columns], [column.name for column in columns]
    total = sum(sum(scores.groups(path)) for path in files)
    stride = max(1, -(-total // _SAMPLE))
    for f, path in enumerate(files):
        for g, table in enumerate(scores.batches(path, names)):
            values = scores.values_of(table, names)
            decision = decide(columns, values)
            failures = decision.failing.sum(axis=1)
            for i, view in enumerate(views):
                fails = decision.failing[:, i]
                view.fails += int(fails.sum())
                view.first += int((decision.first == i).sum())
                view.alone += int((fails & (failures == 1)).sum())
                _see(view, values[:, i], fails, failures, (f, g), stride)
    return views


def _see(
    view: RuleView, values: np.ndarray, fails: np.ndarray, failures: np.ndarray, place: tuple[int, int], stride: int
) -> None:
    """Take the sample and the documents nearest to the threshold from one row group."""
    measured = values[::stride][~np.isnan(values[::stride])]
    if len(measured):
        view.sample.append(measured)
    threshold = view.column.rule.threshold
    if threshold is None:
        return
    for which, into in ((fails, view.dropped), ((failures == 0) & ~np.isnan(values), view.kept)):
        rows = np.flatnonzero(which)
        others = failures[rows] - fails[rows]
        rows = rows[np.lexsort((np.abs(values[rows] - threshold), others))[:_NEAR]]
        into += [
            Near(int(failures[r] - fails[r]), abs(float(values[r]) - threshold), float(values[r]), *place, int(r))
            for r in rows
        ]
        into.sort()
        del into[_NEAR:]


def _texts(files: Sequence[Path], wanted: Sequence[Near]) -> dict[tuple[int, int, int], tuple[str, str]]:
    """(file, group, row) -> (address or id, text) of the documents that are shown."""
    found = {}
    for f, g in sorted({(near.file, near.group) for near in wanted}):
        table = pq.ParquetFile(files[f]).read_row_group(g, columns=["id", "url", "text"])
        for row in sorted({near.row for near in wanted if (near.file, near.group) == (f, g)}):
            one = {name: table.column(name)[row].as_py() for name in table.column_names}
            found[f, g, row] = (one["url"] or one["id"] or "", one["text"] or "")
    return found


def _rule(view: RuleView, texts: dict[tuple[int, int, int], tuple[str, str]]) -> html.Html:
    rule, values = view.column.rule, np.concatenate(view.sample)
    low, high = (float(x) for x in np.quantile(values, (0, 0.99)))
    if rule.threshold is not None:
        low, high = min(low, rule.threshold), max(high, rule.threshold)
    counts = np.histogram(np.clip(values, low, high), _BINS, (low, high if high > low else low + 1))[0]
    words = {"above": "drops above", "below": "drops below", "not_above": "drops unless above"}[rule.drops]
    title = html.Html(
        f"<b>{html.text(view.column.name)}</b> {words} {rule.threshold:g}: fails {view.fails:,}, "
        f"first {view.first:,}, alone {view.alone:,}"
    )
    picture = histogram(counts.tolist(), low, high if high > low else low + 1, rule.threshold, view.column.name)
    sides = [
        html.tag("h4", name) + _documents(near, texts)
        for name, near in (
            ("dropped: first those that no other rule drops, the nearest first", view.dropped),
            ("kept, nearest first", view.kept),
        )
        if near
    ]
    return html.folded(title, picture, *(html.Html(side) for side in sides))


def _documents(near: Sequence[Near], texts: dict[tuple[int, int, int], tuple[str, str]]) -> str:
    shown = []
    for n in near:
        where, body = texts[n.file, n.group, n.row]
        excerpt = body[:_EXCERPT] + ("…" if len(body) > _EXCERPT else "")
        shown.append(html.folded(f"{n.value:.4g}: {where}", html.tag("pre", excerpt)))
    return "".join(shown)
