from __future__ import annotations

import math
from xml.etree import ElementTree

from llmctl.report import markdown
from llmctl.report.plots import Bars, Series, bar_chart, curves, line_chart, series_of, thinned

ROWS = [{"step": i, "loss": 4.0 - i, "reward": None, "lr": 0.1} for i in range(3)] + [{"step": 3, "loss": math.nan}]


def test_a_series_keeps_what_is_a_number() -> None:
    found = series_of(ROWS, "loss", "loss")
    assert found == Series("loss", [0.0, 1.0, 2.0], [4.0, 3.0, 2.0])
    assert series_of(ROWS, "reward", "") is None and series_of(ROWS[:1], "loss", "") is None
    assert series_of([{"step": 1, "loss": True}, {"step": "x", "loss": 1}], "loss", "") is None


def test_rows_out_of_order_and_without_steps() -> None:
    assert series_of([{"step": 2, "loss": 1}, {"step": 1, "loss": 2}], "loss", "").x == [1.0, 2.0]
    assert series_of([{"loss": 1}, {"loss": 2}], "loss", "").x == [0.0, 1.0]


def test_long_lines_are_averaged_not_cut() -> None:
    values = [float(i) for i in range(1000)]
    found = thinned(values, 300)
    assert len(found) == 300 and found == sorted(found)
    assert found[0] < 5 and found[-1] > 994
    assert thinned(values[:300], 300) == values[:300]
    whole = thinned([float(i) for i in range(900)], 300)
    assert sum(whole) / 300 == sum(range(900)) / 900


def test_only_what_a_run_logged_is_drawn() -> None:
    rows = [{"step": i, "loss": 1.0, "accuracy": 0.5, "heldout_accuracy": 0.4} for i in range(4)]
    drawn = curves(rows, "x-")
    assert [c.name for c in drawn] == ["x-loss", "x-accuracy"]
    assert "heldout accuracy" in drawn[1].svg and curves([]) == []


def test_a_chart_is_a_png_and_an_svg_in_the_pages_ink() -> None:
    drawn = line_chart("n", "Title", [Series("a<b", [0, 1], [1, 2]), Series("$x$", [0, 1], [2, 1])], "step", "loss")
    assert drawn.png.startswith(b"\x89PNG\r\n\x1a\n")
    assert drawn.svg.startswith("<svg viewBox=") and "currentColor" in drawn.svg and "#2b2b2c" not in drawn.svg
    assert "a&lt;b" in drawn.svg and "$x$" in drawn.svg
    ElementTree.fromstring(drawn.svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
    again = line_chart("n", "Title", [Series("a<b", [0, 1], [1, 2]), Series("$x$", [0, 1], [2, 1])], "step", "loss")
    assert drawn == again


def test_bars_without_values_or_intervals() -> None:
    drawn = bar_chart("n", "T", ["a", "b"], [Bars("m", [0.5, None], [0.4, None], [0.6, None]), Bars("k", [1, 0])], "%")
    assert drawn.png and drawn.svg


def test_markdown_cells_cannot_break_the_table() -> None:
    text = markdown.table(["a|b", "n"], [["<img src=x>\n|", 3], [None, 0.5]])
    lines = text.strip().split("\n")
    assert lines[0] == "| a\\|b | n |" and lines[1] == "|---|---:|"
    assert lines[2] == "| &lt;img src=x> \\| | 3 |" and lines[3] == "|  | 0.5 |"


def test_a_curve_may_have_another_axis_than_the_step() -> None:
    rows = [{"step": i, "guard_sqrt_kl": 3 - i, "guard_gold": i, "guard_proxy": 2 * i} for i in range(3)]
    assert series_of(rows, "guard_gold", "", "guard_sqrt_kl").x == [1.0, 2.0, 3.0]  # type: ignore[union-attr]
    assert series_of([{"guard_gold": 1}, {"guard_gold": 2}], "guard_gold", "", "guard_sqrt_kl") is None
    (chart,) = curves(rows)
    assert chart.name == "guard" and "square root of the KL" in chart.svg
