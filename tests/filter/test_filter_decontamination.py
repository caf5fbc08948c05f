"""Contamination against a plain set of runs of words; what is planted is found, and nothing else."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.filter.config import DecontaminationSettings, FilterConfig
from llmctl.filter.decontamination import Decontamination, Index, prepare, sets_hit
from llmctl.filter.decontamination_sets import items_of
from llmctl.filter.minhash_text import simplify
from llmctl.filter.row import Row
from llmctl.filter.words import words
from llmctl.formats.document import Document
from llmctl.formats.word_runs import runs, word_hashes
from llmctl.workspace import Workspace

ITEM = "A train leaves the old station at noon and meets another one near the river after 40 minutes."


def row(text: str) -> Row:
    return Row(Document(id="x", text=text))


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def step(path: Path, **changed: Any) -> Decontamination:
    return Decontamination(DecontaminationSettings(sets=[str(path)], **changed))


# What datatrove's decontamination does, written down plainly: normalised words, n in a row, a set.
def expected(items: list[list[str]], text: str, n: int, least: int) -> int:
    wanted = set()
    for part in (part for item in items for part in item):
        found = tuple(words(simplify(part)))
        if len(found) >= n:
            wanted |= {found[i : i + n] for i in range(len(found) - n + 1)}
        elif len(found) >= min(least, n):
            wanted.add(found)
    document = tuple(words(simplify(text)))
    there = {document[i : i + m] for m in range(1, n + 1) for i in range(len(document) - m + 1)}
    return len(wanted & there)


text_of = st.lists(st.sampled_from(["a", "b", "c", "D!", "7", "é", "don't", ",", "\n\n"]), max_size=25).map(" ".join)


@given(st.lists(st.lists(text_of, min_size=1, max_size=3), max_size=6), text_of, st.integers(1, 6), st.integers(1, 8))
@settings(max_examples=150, deadline=None)
def test_it_finds_what_a_plain_set_finds(
    tmp_path_factory: pytest.TempPathFactory, items: list[list[str]], text: str, n: int, least: int
) -> None:
    path = jsonl(tmp_path_factory.getbasetemp() / "any.jsonl", [dict(enumerate(item)) for item in items])
    joined = [[*item, " ".join(item)] if len(item) > 1 else item for item in items]
    assert step(path, ngram=n, min_words=least)(row(text)) == (expected(joined, text, n, least),)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ITEM, True),
        (f"Before it. {ITEM.upper()} Behind it.", True),
        (ITEM.replace("noon", "<b>noon"), False),  # a word more in the middle
        (ITEM.replace(" ", "\n").replace("40", "99").replace("é", "e"), True),  # numbers are alike, and so are spaces
        (" ".join(ITEM.split()[:13]), True),
        (" ".join(ITEM.split()[:12]), False),
        (" ".join(reversed(ITEM.split())), False),
        ("", False),
    ],
)
def test_thirteen_words_in_a_row(tmp_path: Path, text: str, found: bool) -> None:
    decontamination = step(jsonl(tmp_path / "set.jsonl", [{"q": ITEM}]))
    assert (decontamination(row(text))[0] > 0) is found


def test_a_question_with_its_answer_behind_it_is_found(tmp_path: Path) -> None:
    item = {"id": 3, "question": "Which of these rivers is the longest one?", "choices": ["the Nile", "the Rhine"],
            "answer": "The longest of them is the Nile."}  # fmt: skip
    decontamination = step(jsonl(tmp_path / "set.jsonl", [item]))
    assert decontamination(row("which of these rivers is the longest one"))[0] == 1  # whole: eight words
    assert decontamination(row("the longest of them is the nile"))[0] == 0  # seven
    assert decontamination(row("is the longest one? The Nile, the Rhine: the longest of them is the Nile"))[0] > 0
    only = step(tmp_path / "set.jsonl", fields=["answer"], min_words=7)
    assert only(row("which of these rivers is the longest one"))[0] == 0
    assert only(row("the longest of them is the nile"))[0] == 1


def test_details_name_the_items_and_sets_are_counted(tmp_path: Path) -> None:
    rnd = random.Random(0)
    items = [" ".join(rnd.choices("abcdefghijklmnopqrstuvwxyz", k=15)) for _ in range(9)]
    one, two = jsonl(tmp_path / "one.jsonl", [{"t": t} for t in items[:5]]), tmp_path / "two.txt"
    two.write_text("\n\n".join(items[5:]))
    decontamination = Decontamination(DecontaminationSettings(sets=[str(one), str(two)]))
    document = row(f"{items[1]} {items[6]}")
    assert decontamination(document) == (6,) and document.details["ngrams"] == "one.jsonl#2, two.txt#2"
    many = row(" . ".join(items))
    assert decontamination(many) == (27,)
    assert many.details["ngrams"] == "one.jsonl#1, one.jsonl#2, one.jsonl#3, and 6 more"
    clean = row("nothing of it")
    decontamination(clean)
    assert clean.details == {}
    assert sets_hit([document.details["ngrams"], "one.jsonl#1, one.jsonl#3, and 6 more"]) == {
        "one.jsonl": 2,
        "two.txt": 1,
    }


@pytest.mark.parametrize(
    ("most", "dropped"), [(0, [False, True, True]), (1, [False, False, True]), (None, [False] * 3)]
)
def test_the_threshold_is_a_number_of_runs(tmp_path: Path, most: int | None, dropped: list[bool]) -> None:
    (rule,) = step(jsonl(tmp_path / "s.jsonl", [{"q": ITEM}]), most=most).rules
    assert rule.fails(np.array([0.0, 1.0, 2.0])).tolist() == dropped


def test_prepared_once_and_loaded_everywhere(tmp_path: Path, workspace: Workspace) -> None:
    path = jsonl(tmp_path / "set.jsonl", [{"q": ITEM}])
    given_ = DecontaminationSettings(sets=[str(path)])
    ready = prepare(given_, workspace, tmp_path)
    path.unlink()
    assert prepare(given_, workspace, tmp_path) == ready  # not made again
    document = row(ITEM)
    loaded = Decontamination(DecontaminationSettings.model_validate_json(ready.model_dump_json()))
    assert loaded(document)[0] == 6 and document.details["ngrams"] == "set.jsonl#1"
    empty = jsonl(tmp_path / "empty.jsonl", [])
    Index.of([empty], given_).save(tmp_path / "nothing")
    assert Decontamination(given_, Index.load(tmp_path / "nothing"))(row(ITEM)) == (0,)


def test_sets_are_inputs_of_the_stage(tmp_path: Path, workspace: Workspace) -> None:
    path = jsonl(tmp_path / "set.jsonl", [{"q": ITEM}])
    config = FilterConfig.model_validate({"pages": str(path), "decontamination": {"sets": [str(tmp_path)]}})
    before = workspace.fingerprint(config)
    jsonl(path, [{"q": "another"}])
    assert workspace.fingerprint(config) != before


def test_sets_in_every_format(tmp_path: Path) -> None:
    rows = [{"q": "one", "inner": {"a": ["two", {"b": "three"}], "n": 4}}, {"q": "five", "inner": None}]
    wanted = [["one", "two", "three", "one two three"], ["five"]]
    pq.write_table(pa.Table.from_pylist([{"q": "one", "c": ["two", "three"]}]), tmp_path / "c.parquet")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "d.md").write_text("six\nseven\n\n \n\neight\n")
    (tmp_path / "_hidden.txt").write_text("no")
    assert list(items_of(tmp_path / "a.jsonl.gz", [])) == wanted
    assert list(items_of(tmp_path, [])) == [*wanted, *wanted, wanted[0], ["six\nseven"], ["eight\n"]]
    assert list(items_of(tmp_path / "b.json", ["q"])) == [["one"], ["five"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.jsonl", '{"question": "x"}\n{"q": ', r"a\.jsonl:2"), ("a.parquet", "x", "no Parquet"),
     ("a.csv", "x", "no evaluation set"), ("a.jsonl", '{"q": "x"}', "no field 'question'"),
     ("a.jsonl", "[1]", r"a\.jsonl:1")],
)  # fmt: skip
def test_a_set_that_cannot_be_read_is_told(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        Index.of([tmp_path / name], DecontaminationSettings(fields=["question"]))


def test_runs_are_hashed_the_same_in_every_process() -> None:
    found = runs(word_hashes(["the", "é", "", "the"]), [1, 2])
    assert found[1][0] == found[1][3] and len(set(found[1].tolist())) == 3 and len(found[2]) == 3
    assert int(found[2][0]) == 0xD07C4AA37BA6263B  # another would not find what an older index holds
    assert {n: len(r) for n, r in runs(word_hashes([]), [1, 3]).items()} == {1: 0, 3: 0}
    assert runs(word_hashes(["a"]), [2])[2].shape == (0,)


def test_every_item_planted_in_real_text_is_found_and_clean_text_is_not(data: Path) -> None:
    index = Index.of([data / "eval" / f"{n}.jsonl.gz" for n in ("boolq", "arc_easy")], DecontaminationSettings())
    decontamination = Decontamination(DecontaminationSettings(), index)
    with gzip.open(data / "text" / "c4_demo.jsonl.gz", "rt", encoding="utf-8") as f:
        pages = [json.loads(line)["text"] for line in f]
    assert sum(decontamination(row(p))[0] > 0 for p in pages) == 0
    with gzip.open(data / "eval" / "boolq.jsonl.gz", "rt", encoding="utf-8") as f:
        questions = [json.loads(line)["query"] for line in f]
    for page, question in zip(pages, questions, strict=False):
        at = page.find(" ", len(page) // 2)
        document = row(f"{page[:at]} {question.upper()} {page[at:]}")
        assert decontamination(document)[0] > 0 and "boolq.jsonl.gz#" in document.details["ngrams"]
