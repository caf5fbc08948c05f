"""Search: any text is a query, the right document comes first, and results are bounded."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.tools.search import SearchIndex, read_library
from llmctl.tools.toolbox import NOTHING, Toolbox
from llmctl.workspace import Foreign

PAGES = [
    ("Velmora", "Velmora is a town in Spain. The mayor of Velmora is Ida Moore."),
    ("Tarnok", "Tarnok is a company in Italy. The head of Tarnok is Paul Reed. It sells to Velmora."),
    ("Café Zoë", "A café. Été in Genève."),
    ("long", "nothing of note. " * 500 + "Here the needle lies. " + "more of nothing. " * 500),
]
INDEX = SearchIndex.build(PAGES)


def test_the_document_about_the_words_comes_first() -> None:
    assert INDEX.search("town Velmora") == [PAGES[0]]
    assert [t for t, _ in INDEX.search("velmora", k=5)] == ["Velmora", "Tarnok"]
    assert INDEX.search("company TARNOK")[0] == PAGES[1]
    assert INDEX.search("cafe zoe geneve")[0][0] == "Café Zoë"
    assert len(INDEX) == 4


@settings(deadline=None)
@given(
    st.text()
    | st.sampled_from(['"', 'a" OR "b', "NEAR(a b)", "title:x", "a AND", "*", "NOT", "-x", "(", "'; DROP TABLE pages"])
)
def test_any_text_is_a_legal_query(query: str) -> None:
    assert isinstance(INDEX.search(query, k=3), list)
    assert INDEX.search("town Velmora") == [PAGES[0]]


def test_queries_without_a_known_word_find_nothing() -> None:
    assert INDEX.search("") == INDEX.search("!?") == INDEX.search("xyzzy") == []
    assert INDEX.search("Velmora", k=0) == []


def test_long_documents_are_given_as_the_passage_that_matches() -> None:
    ((title, passage),) = INDEX.search("needle", limit=400)
    assert title == "long" and "the needle lies" in passage and len(passage) <= 400


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_any_text_can_be_indexed(pages: list[tuple[str, str]]) -> None:
    assert len(SearchIndex.build([*pages, ("\ud800", "\udfff lone")])) == len(pages) + 1


def test_libraries_are_read_from_all_their_forms(tmp_path: Path) -> None:
    rows = [{"title": t, "text": x} for t, x in PAGES[:2]]
    chats = tmp_path / "chats"
    chats.mkdir()
    (chats / "library.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert list(read_library(Foreign(chats, ""))) == PAGES[:2]
    assert list(read_library(Foreign(chats / "library.jsonl", ""))) == PAGES[:2]

    corpus = tmp_path / "corpus" / "data"
    corpus.mkdir(parents=True)
    pq.write_table(
        pa.table({"url": [t for t, _ in PAGES[:2]], "text": [x for _, x in PAGES[:2]]}), corpus / "00000.parquet"
    )
    assert list(read_library(Foreign(corpus.parent, ""))) == PAGES[:2]

    texts = tmp_path / "texts" / "deep"
    texts.mkdir(parents=True)
    (texts / "Velmora.txt").write_text(PAGES[0][1])
    assert list(read_library(Foreign(texts.parent, ""))) == PAGES[:1]


def test_what_is_no_library_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to search"):
        list(read_library(Foreign(tmp_path, "")))
    wrong = tmp_path / "a.jsonl"
    wrong.write_text('{"title": "a", "text": "b"}\n{"title": "a"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2"):
        list(read_library(Foreign(wrong, "")))


def test_the_toolbox_runs_what_is_on_and_says_what_is_off() -> None:
    both = Toolbox(INDEX, python=True)
    assert both("search", "town Velmora") == "Velmora: Velmora is a town in Spain. The mayor of Velmora is Ida Moore."
    assert both("search", "xyzzy") == NOTHING
    assert both("python", "6 * 7") == "42"
    assert len(both("python", "print('x' * 10000)")) <= 600
    assert "not available" in Toolbox()("python", "1") and "not available" in Toolbox()("search", "a")
    assert "not available" in both("shell", "ls")


def test_an_index_on_disk_answers_like_one_in_memory(tmp_path: Path) -> None:
    assert SearchIndex.build(PAGES, tmp_path / "index.db").search("town Velmora") == [PAGES[0]]
