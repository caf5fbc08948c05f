"""Extraction: what a page's text is, what hostile pages do to it, and that nothing leaks from page to page."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import faulty_parsers
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from filter_helpers import PROSE

from llmctl.errors import UserError
from llmctl.filter import html_shortcuts
from llmctl.filter.config import ExtractSettings
from llmctl.filter.extract import Extract
from llmctl.filter.html_text import MainText
from llmctl.filter.row import Row
from llmctl.formats.document import Document
from llmctl.parallel import Guard

needs_resiliparse = pytest.mark.skipif(importlib.util.find_spec("resiliparse") is None, reason="an extra: [fast]")
EXTRACTORS = ["trafilatura", pytest.param("resiliparse", marks=needs_resiliparse)]
ARTICLE = "".join(f"<p>{line}</p>" for line in PROSE.split("\n"))
PAGE = (
    "<html><head><title>The bridge</title><script>var a = 1;</script></head><body><nav><a href=/>Home</a> "
    f"<a href=/x>Shop</a></nav><article>{ARTICLE}</article><footer>All rights</footer></body></html>"
)
RULES = ["too_large", "timeout", "crash", "failure", "empty"]


@pytest.fixture(scope="module", params=EXTRACTORS)
def step(request: pytest.FixtureRequest) -> Iterator[Extract]:
    step = Extract(ExtractSettings(extractor=request.param, seconds=1.0))
    yield step
    step.close()


def page(html: bytes | str, **fields: str) -> Row:
    return Row(Document(id="x", html=html.encode() if isinstance(html, str) else html, **fields))


def outcome(step: Extract, row: Row) -> tuple[str, float]:
    """The first rule that drops the page and its value, or ("", characters)."""
    values = [float(v) for v in step(row)]
    assert [rule.name for rule in step.rules] == RULES and len(values) == len(RULES)
    for rule, value in zip(step.rules, values, strict=True):
        if not math.isnan(value) and rule.fails(np.array([value]))[0]:
            return rule.name, value
    return "", values[-1]


def real_pages(data: Path) -> list[bytes]:
    found = []
    for path in sorted((data / "web").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as f:
            for r in map(json.loads, f):
                html = r.get("html")
                found.append(base64.b64decode(r["html_b64"]) if html is None else html.encode("utf-8", "replace"))
    return found


# What the text is


def test_the_article_is_found_and_the_menu_is_not(step: Extract) -> None:
    row = page(PAGE)
    size = row.size
    assert list(step(row)) == [size, 0.0, 0.0, 0.0, len(PROSE) + (step.settings.extractor == "resiliparse") * 5]
    assert row.body.replace("\n\n", "\n") == PROSE and size == len(PAGE) and row.size == len(row.body.encode())


def test_paragraphs_are_lines_for_the_rules_behind(step: Extract) -> None:
    row = page(PAGE)
    step(row)
    assert [line for line in row.body.split("\n") if line] == PROSE.split("\n")


def test_text_passes_through_and_html_can_be_taken_as_it_is(step: Extract) -> None:
    text = Row(Document(id="x", text=PROSE))
    values = list(step(text))
    assert all(map(math.isnan, values[:4])) and values[4] == len(PROSE) and text.text == PROSE
    assert outcome(step, Row(Document(id="x", text=" \n\u00a0"))) == ("empty", 0.0)
    raw = page("<p>é")
    assert outcome(Extract(ExtractSettings(enabled=False)), raw) == ("", 4.0) and raw.text == "<p>é"


@pytest.mark.parametrize(
    ("encoding", "charset"),
    [("latin-1", "iso-8859-1"), ("utf-8", "iso-8859-1"), ("latin-1", "utf-8"), ("utf-16", ""), ("utf-8-sig", "latin-1"),
     ("utf-8", "no-such-charset"), ("utf-16-le", ""), ("utf-16-be", "")],
)  # fmt: skip
def test_a_charset_undeclared_or_wrong(step: Extract, encoding: str, charset: str) -> None:
    row = page(PAGE.replace("mill", "Mühle").encode(encoding), charset=charset)
    assert outcome(step, row)[0] == ""
    # Latin-1 that calls itself UTF-8 is the one case where nothing tells what the letter was.
    assert ("Mühle" in row.body or charset == "utf-8") and row.body.count("\n") >= 5


# Hostile pages

HOSTILE = {
    "nested": b"<div>" * 100_000 + b"x",
    "unclosed": b"<p><b>" * 500_000 + b"x",
    "large": b"<p>word word word word word</p>\n" * 600_000,
    "invalid UTF-8": PAGE.encode().replace(b"river", b"ri\xff\xfever"),
    "NUL": b"\0" * 100 + PAGE.encode().replace(b"river", b"ri\0ver"),
    "comment": PAGE.encode() + b"<!-- " + b"x" * 1_000_000,
    "attribute": PAGE.encode().replace(b"<p>", b'<p class="' + b"x" * 100_000 + b'">', 1),
    "gzip": gzip.compress(PAGE.encode()),
    "nothing": b"",
    "spaces": b" \n" * 1000,
    "scripts": b"<html><script>" + b"var x = 1;" * 10_000 + b"</script><style>a {}</style></html>",
    "brackets": b"<" * 100_000,
    "tables": b"<table><tr><td>x" * 20_000,
    "surrogate": b"<html><p>" + "\ud800".encode("utf-8", "surrogatepass") + PAGE.encode(),
    "utf-7": b'<html><meta charset="utf-7"><p>+2AA- a lone surrogate</p></html>',
}
READABLE = {"invalid UTF-8", "NUL", "comment", "attribute", "surrogate"}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_page_loses_only_itself(step: Extract, name: str) -> None:
    row = page(HOSTILE[name])
    rule, _ = outcome(step, row)
    assert rule in ("", "timeout", "failure", "empty")  # a verdict, and never a crash
    if name in READABLE:
        assert rule == "" and "The committee met on Tuesday" in row.body
    (row.text or "").encode()
    assert outcome(step, page(PAGE))[0] == ""  # and it goes on


def test_a_page_too_large_is_not_read() -> None:
    step = Extract(ExtractSettings(max_bytes=50))
    row = page("<p>" + "x" * 100)
    values = list(step(row))
    assert values[0] == 103.0 and all(map(math.isnan, values[1:])) and row.text is None
    assert "_guard" not in vars(step), "a process was started for nothing"
    assert step.rules[0].threshold == 50 and outcome(step, page("x" * 51)) == ("too_large", 51.0)


def test_a_crash_a_hang_and_a_failure_are_told_apart_and_survived() -> None:
    step = Extract(ExtractSettings())
    step.__dict__["_guard"] = Guard(faulty_parsers.faulty, seconds=0.2)
    try:
        for html, rule, detail in (
            ("crash", "crash", "SIGSEGV"),
            ("hang", "timeout", "more than 0.2 s of processor time"),
            ("fail", "failure", "ValueError: no such luck"),
        ):
            row = page(html)
            values = list(step(row))
            assert values[1:4] == [float(rule == name) for name in RULES[1:4]] and math.isnan(values[4])
            assert row.details == {rule: detail} and row.text is None
            assert outcome(step, page("fine")) == ("", 4.0)
    finally:
        step.close()


def test_the_limit_is_on_each_page_and_not_on_their_sum() -> None:
    spin = MainText(ExtractSettings())
    with Guard(spin, seconds=0.3, prepare=spin.prepare) as guard:
        pages = [guard((PAGE.encode(), None)) for _ in range(150)]  # more than 0.3 s together
    assert set(pages) == {PROSE}


def test_the_process_is_replaced_now_and_then() -> None:
    with Guard(faulty_parsers.process, seconds=5, renew_after=2) as guard:
        found = [guard((b"", None)) for _ in range(5)]
    assert found[0] == found[1] and found[2] == found[3] and len(set(found)) == 3


def test_an_extractor_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"(?s)resiliparse is not installed.*llmctl-toolkit\[fast\]"):
        Extract(ExtractSettings(extractor="resiliparse"))
    Extract(ExtractSettings(extractor="resiliparse", enabled=False))


# Nothing leaks from page to page


@pytest.mark.slow
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_a_page_gives_the_same_text_whatever_came_before_it(data: Path, extractor: str) -> None:
    pages = random.Random(0).sample(real_pages(data), 40)
    pages += pages[:10] * 3
    alone = {}
    for html in pages:
        if html not in alone:
            alone[html] = MainText(ExtractSettings(extractor=extractor))((html, None))
    main_text, order = MainText(ExtractSettings(extractor=extractor)), random.Random(1)
    for _ in range(2):
        order.shuffle(pages)
        assert all(main_text((html, None)) == alone[html] for html in pages)


# Trafilatura as it is, in a process where nothing else has touched it: pages as JSON of base64 in, texts out.
_PLAIN = """
import base64, json, sys
from trafilatura import extract
from llmctl.formats.charset import decode
pages = map(base64.b64decode, json.load(sys.stdin))
print(json.dumps([extract(decode(p), favor_precision=True, include_comments=False) or "" for p in pages]))
"""


@pytest.mark.slow
def test_the_text_is_trafilaturas_own_on_every_real_page(data: Path) -> None:
    pages = [
        *real_pages(data),
        *(HOSTILE[name] for name in sorted(READABLE)),
        b"<html><o:p a&#1;='&#2;' class='&#3;'>x",
    ]
    sent = json.dumps([base64.b64encode(p).decode() for p in pages])
    plain = subprocess.run([sys.executable, "-c", _PLAIN], input=sent, capture_output=True, text=True, check=True)
    main_text = MainText(ExtractSettings())
    assert [main_text((p, None)) for p in pages] == json.loads(plain.stdout)


def test_the_shortcuts_have_taken_hold() -> None:
    from trafilatura import xpaths

    html_shortcuts.install()
    for expressions in (xpaths.OVERALL_DISCARD_XPATH, xpaths.REMOVE_COMMENTS_XPATH, xpaths.TEASER_DISCARD_XPATH):
        assert all(isinstance(e, html_shortcuts.Remembered) for e in expressions)
    assert html_shortcuts.install() == 0  # once is enough


@pytest.mark.parametrize(
    ("path", "own", "rest"),
    [
        (".//*[self::p or self::div][@id='a']", 2, 0),
        (".//*[re:test(@id|@class, 'a[0-9]/\\]')]", 1, 0),
        (".//*[contains(translate(@id, 'T', 't'), 't')][not(.//h1) or @id]", 1, 1),
        (".//*[@class='a'][1]", 1, 1),
        (".//*[position()=1]", None, None),
        (".//*[@class=../@id]", None, None),
        (".//*[@id]/p", None, None),
        (".//*[@id]|.//p", None, None),
        (".//header", None, None),
        ("(.//*[@id])[1]", None, None),
    ],
)
def test_only_tests_of_the_element_itself_are_remembered(path: str, own: int | None, rest: int | None) -> None:
    found = html_shortcuts.understood(path)
    assert (tuple(map(len, found)) if found else (None, None)) == (own, rest)


ELEMENTS = st.tuples(
    st.sampled_from(["div", "p", "b"]),
    st.permutations(["id", "class", "style"]),
    st.integers(0, 3),
    st.sampled_from(["nav", "x", "", "ad-box", "é"]),
)


@given(st.lists(ELEMENTS, max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_remembered_expression_finds_what_the_expression_finds(
    elements: list[tuple[str, list[str], int, str]],
) -> None:
    from lxml import etree, html

    tree = html.fromstring("<html><body></body></html>")
    for i, (tag, names, count, value) in enumerate(elements):
        parent = list(tree.iter())[i % (i // 2 + 1)]
        element = etree.SubElement(parent, tag)
        for name in names[:count]:
            element.set(name, value if name != "style" else "x")
    for path in (
        ".//*[self::div or self::p][re:test(@id|@class, '^nav|ad-')]",
        ".//*[@class='x' or contains(@style, 'x')]",
        ".//*[self::div][@id='x'][not(.//p)]",
    ):
        expression = etree.XPath(path, namespaces={"re": "http://exslt.org/regular-expressions"})
        remembered = html_shortcuts.Remembered(expression)
        assert remembered(tree) == expression(tree) == remembered(tree)
