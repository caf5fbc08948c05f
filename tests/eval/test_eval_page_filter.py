"""Browsing answers on the page: buttons that hide by a style alone, each naming what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmctl.eval.page import _sort
from llmctl.report import html
from llmctl.report.style import SORTS, STYLE


def shown(markup: str, style: str, choice: int) -> list[str]:
    """What a browser shows with one button pressed: the style's rules, applied by hand."""
    hidden = {
        int(c): int(s) for c, s in re.findall(r"\.filter>\.c(\d):checked~\.kept>:not\(\.s(\d)\)", style)
    }  # choice -> the only sort that stays
    blocks = re.findall(r'<div class="s(\d)">(\w+)</div>', markup)
    return [text for sort, text in blocks if choice not in hidden or int(sort) == hidden[choice]]


def test_each_button_leaves_its_sort() -> None:
    blocks = [("right", html.Html("a")), ("wrong", html.Html("b")), ("right", html.Html("c"))]
    markup = html.filtered("t", blocks)
    assert re.findall(r"<label[^>]*>([^<]*)</label>", markup) == ["all 3", "right 2", "wrong 1"]
    assert [shown(markup, STYLE, i) for i in range(3)] == [["a", "b", "c"], ["a", "c"], ["b"]]
    assert markup.count(" checked") == 1 and "<script" not in markup
    ids = re.findall(r' id="([^"]+)"', markup)
    assert ids == re.findall(r' for="([^"]+)"', markup) and len(set(ids)) == 3


def test_the_style_knows_every_sort_there_can_be() -> None:
    markup = html.filtered("t", [(f"k{i}", html.Html(f"b{i}")) for i in range(SORTS)])
    assert [shown(markup, STYLE, i + 1) for i in range(SORTS)] == [[f"b{i}"] for i in range(SORTS)]
    with pytest.raises(AssertionError):
        html.filtered("t", [(f"k{i}", html.Html("")) for i in range(SORTS + 1)])


def test_one_sort_needs_no_buttons_and_names_are_escaped() -> None:
    assert html.filtered("t", [("right", html.Html("a"))]) == "a"
    assert "<b>" not in html.filtered("t", [("<b>", html.Html("a")), ("c", html.Html("b"))])


@pytest.mark.parametrize(
    ("labels", "right", "sort"),
    [
        (["a"], [True], "right"),
        (["a", "b"], [True, False], "only a right"),
        (["a", "b"], [False, True], "only b right"),
        (["a", "b"], [False, False], "all wrong"),
        (["a", "b", "c"], [True, True, True], "all right"),
        (["a", "b", "c"], [True, False, True], "they differ"),
    ],
)
def test_what_answers_are_filtered_by(labels: list[str], right: list[bool], sort: str, tmp_path: Path) -> None:
    assert _sort(labels, [{"correct": r} for r in right]) == sort
