"""The page of a scaling law: the law, the check, the curves, and what a larger run would reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.eval.scaling_fit import FLOPS, Law
from llmctl.report import html
from llmctl.report.plots import COLOURS, Chart, Series, line_chart

_STEPS = 60


def write_scaling_report(folder: Path, results: Mapping[str, Any]) -> None:
    """Write `report.html` and the PNGs beside it."""
    law = Law(**{k: v["value"] for k, v in results["law"].items()})
    drawn = charts(results, law)
    for chart in drawn:
        (folder / f"{chart.name}.png").write_bytes(chart.png)
    parts = [
        _tiles(results),
        html.section("The law", _law(results), html.charts(drawn)),
        html.section("The run that was held back", _held(results)),
        html.section("The best model for a budget", _best(results)),
        html.section("Predictions", _predicted(results["predicted"], results["loss"])),
        html.section("The runs", _runs(results)),
        html.section("How this was made", *(html.paragraph(n) for n in (*_METHOD, *results["notes"]))),
    ]
    html.write_page(folder / "report.html", "What a larger model would reach", parts, f"seed {results['seed']}")


_METHOD = (
    "The Huber loss (delta 0.001) of the log of the loss, summed over the runs, is minimised by BFGS from the best 60 "
    "of 300 starting points (Hoffmann et al. 2022, third approach). Intervals: 95 % of resamples of the runs; a "
    "prediction's also holds the scatter of the runs about the law.",
    "The law speaks about runs like these: the same data, tokenizer, family and schedule, each run with its learning "
    "rate down to the end. Far beyond the largest of them it is a guess with an interval that is too narrow.",
)


def charts(results: Mapping[str, Any], law: Law) -> list[Chart]:
    """Loss against tokens, a curve a size; and against computation, with the best that any size can do."""
    runs, label = results["runs"], results["loss"]
    sizes = sorted({r["n"] for r in runs})
    found = []
    if len(sizes) <= len(COLOURS):
        ends = [min(r["d"] for r in runs), max(r["d"] for r in runs)]
        xs = _between(*ends)
        lines = [Series(f"{_plain(n)} parameters", xs, [law.loss(n, d) for d in xs]) for n in sizes]
        dots = [_dots("", [r for r in runs if r["n"] == n], "d") for n in sizes]
        title = "Loss against tokens: runs and law"
        found.append(line_chart("scaling-tokens", title, lines, "tokens", label, dots, log_x=True))
    spent = [FLOPS * r["n"] * r["d"] for r in runs]
    xs = _between(min(spent), max([*spent, *(b["flops"] for b in results["best"])]))
    frontier = Series("the best for a budget", xs, [law.loss(*law.best(c)) for c in xs])
    dots = [_dots("", [r for r in runs if not r["held_back"]], "flops")]
    if any(r["held_back"] for r in runs):
        dots.append(_dots("held back", [r for r in runs if r["held_back"]], "flops"))
    title = "Loss against computation"
    found.append(line_chart("scaling-flops", title, [frontier], "FLOPs (6 N D)", label, dots, log_x=True))
    return found


def _dots(label: str, runs: Sequence[Mapping[str, Any]], axis: str) -> Series:
    points = sorted((FLOPS * r["n"] * r["d"] if axis == "flops" else r["d"], r["loss"]) for r in runs)
    return Series(label, [p[0] for p in points], [p[1] for p in points])


def _between(low: float, high: float) -> list[float]:
    return [float(v) for v in np.geomspace(low, max(high, low * 1.01), _STEPS)]


def _tiles(results: Mapping[str, Any]) -> html.Html:
    tiles = [(f"{results['law']['E']['value']:.4g}", f"{results['loss']}: the floor, E")]
    if held := results["held_back"]:
        tiles.append((f"{100 * held['error']:+.2f} %", f"off on the run held back, {held['name']}"))
    exponent = results["exponent"]
    tiles.append((f"N ∝ C^{exponent['value']:.2f}", f"the best size ({exponent['low']:.2f} to {exponent['high']:.2f})"))
    return html.tag("div", *(html.tag("div", html.tag("b", v), html.tag("span", k)) for v, k in tiles), cls="tiles")


def _law(results: Mapping[str, Any]) -> html.Html:
    rows = [[k, _shown(v["value"], v["low"], v["high"])] for k, v in results["law"].items()]
    told = html.paragraph("L(N, D) = E + A / N^α + B / D^β, with N parameters and D tokens.")
    return html.Html(told + html.table(("", "value, with its 95 % interval"), rows))


def _held(results: Mapping[str, Any]) -> html.Html:
    held = results["held_back"]
    if not held:
        return html.Html("")
    row = [
        held["name"], _plain(held["n"]), _plain(held["d"]), _shown(held["loss"], held["low"], held["high"]),
        f"{held['measured']:.4g}", f"{100 * held['error']:+.2f} %",
    ]  # fmt: skip
    return html.table(("run", "N", "D", "foretold", "measured", "off by"), [row])


def _best(results: Mapping[str, Any]) -> html.Html:
    rows = [
        [
            f"{b['flops']:.3g}", html.interval(_plain(b["n"]), _plain(b["n_low"]), _plain(b["n_high"])),
            _plain(b["d"]), f"{b['d'] / b['n']:.3g}", _shown(b["loss"], b["low"], b["high"]),
        ]
        for b in results["best"]
    ]  # fmt: skip
    return html.table(("FLOPs", "parameters", "tokens", "tokens a parameter", results["loss"]), rows)


def _predicted(rows: Sequence[Mapping[str, Any]], label: str) -> html.Html:
    if not rows:
        return html.Html("")
    cells = [[_plain(p["n"]), _plain(p["d"]), _shown(p["loss"], p["low"], p["high"])] for p in rows]
    return html.table(("parameters", "tokens", label), cells)


def _runs(results: Mapping[str, Any]) -> html.Html:
    rows = [
        [
            r["name"], _plain(r["n"]), _plain(r["d"]), f"{r['loss']:.4g}", f"{r['fitted']:.4g}",
            f"{100 * (r['fitted'] / r['loss'] - 1):+.2f} %" + (", held back" if r["held_back"] else ""),
        ]
        for r in results["runs"]
    ]  # fmt: skip
    return html.table(("run", "N", "D", results["loss"], "the law says", "off by"), rows)


def _shown(value: float, low: float, high: float) -> html.Html:
    return html.interval(f"{value:.4g}", f"{low:.4g}", f"{high:.4g}")


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value < 1e7 else f"{value:.3g}"
