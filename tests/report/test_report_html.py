"""Pages: whole, escaped, and asking nobody for anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.report import html
from llmctl.report.plots import Bars, bar_chart, curves
from llmctl.report.run_page import headline, seconds, write_run_report

VOID = {"meta", "img", "br", "path", "use", "rect"}
LOADING = {"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio"}


class Reader(HTMLParser):
    """Checks that tags nest and that nothing is loaded; collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith(("data:image/", "#")), (tag, value)
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open, reader.open
    assert not reader.tags & LOADING
    assert not re.search(r"url\((?!#)", page) and "@import" not in page
    return reader


STEPS = [
    {"stage": "crawl", "name": "docs", "seconds": 3.2, "in": "demo", "out": "212 pages",
     "headline": {"label": "pages", "before": None, "after": 212, "unit": ""}, "metrics": [], "figures": {}},
    {"stage": "pretrain", "name": "base", "seconds": 75, "metrics": [{"step": i, "loss": 5 - i / 10} for i in range(9)],
     "headline": {"label": "bits per byte", "before": 8.0, "after": 1.9312, "unit": ""},
     "figures": {"loss": 1.5, "group": {"a": 1, "rows": [1, 2]}, "in": "x", "headline": {"after": 1}}},
    {"stage": "chat", "name": "talk", "answers": [{"question": "2+2?", "answer": "4", "expected": "4", "correct": True},
                                                  {"question": "Hi", "answer": "Hello."}]},
    {},
]  # fmt: skip


def test_the_page_of_a_run_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    path = write_run_report(tmp_path / "new", "quickstart <1>", STEPS)
    assert path == tmp_path / "new" / "report.html" and [p.name for p in path.parent.iterdir()] == ["report.html"]
    page = path.read_text(encoding="utf-8")
    reader = read(page)
    assert "svg" in reader.tags and "default-src 'none'" in page
    for expected in ("quickstart <1>", "212 pages", "bits per byte: 8 → 1.931", "1 min 15 s", "group.a", "Hello."):
        assert expected in reader.text, expected
    # Namespaces aside, which are names and are never fetched, no address is in it.
    assert not re.findall(r"https?://", page)


def test_the_same_steps_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_run_report(tmp_path / n, "run", STEPS).read_bytes() for n in "ab")
    assert first == second


def test_headlines_and_durations() -> None:
    assert headline({"label": "kept", "before": 210, "after": 151, "unit": "documents"}) == "kept: 210 → 151 documents"
    assert headline({"label": "kept", "before": None, "after": 0, "unit": ""}) == "kept: 0"
    assert headline(None) == "" and headline({"label": "x", "before": 1, "after": None}) == ""
    assert [seconds(s) for s in (0.04, 59.4, 60, 3599, 7260)] == [
        "0.0 s", "59.4 s", "1 min 00 s", "59 min 59 s", "2 h 01 min"
    ]  # fmt: skip


@given(st.text(max_size=60))
def test_whatever_stands_in_a_page_it_stays_text(hostile: str) -> None:
    example = html.example(html.Example(hostile, hostile, [html.Reply(hostile, hostile, False, hostile)]))
    table = html.table([hostile], [[hostile, 1, None, True, 2.5]], hostile)
    page = html.page(hostile, [html.section(hostile, example, table), html.interval(hostile, "0", "1", 0.5)], hostile)
    page.encode("utf-8")
    reader = read(page)
    assert reader.tags <= {
        "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "p", "section", "details",
        "summary", "span", "dl", "dt", "dd", "pre", "small", "div", "table", "caption", "thead", "tbody", "tr", "th",
        "td", "b", "i",
    }  # fmt: skip


@pytest.mark.parametrize("hostile", ["<script>x</script>", '"><svg onload=x>', "&lt;", "\ud800\x00", "]]>-->"])
def test_hostile_text_is_shown_as_it_is(hostile: str) -> None:
    page = html.page("t", [html.paragraph(hostile)])
    shown = hostile.replace("\ud800", "�").replace("\x00", "�")
    assert shown in read(page).text


def test_charts_and_images_are_inside_the_page() -> None:
    drawn = bar_chart("b", "<Bars>", ["one", "two"], [Bars("m", [1.0, None], [0.5, None], [2.0, None])], "%")
    page = html.page("t", [html.charts([drawn, *curves(STEPS[1]["metrics"])]), html.image(drawn.png, "<Bars>")])
    reader = read(page)
    assert {"svg", "img"} <= reader.tags and "<Bars>" in reader.text


def test_empty_sections_are_left_out() -> None:
    assert html.section("Nothing", html.charts([])) == ""
    assert "<section" not in html.page("t", [html.section("Nothing")])
