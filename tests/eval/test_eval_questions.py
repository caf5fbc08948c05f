from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.questions import questions
from llmctl.workspace import Artifact, Foreign


def config(**settings) -> EvalConfig:
    return EvalConfig(models=["m"], **settings)


def test_the_same_items_whatever_their_order_and_the_answer_is_not_among_them(shelf) -> None:
    one = shelf.conversations("one", ("sums",), 30)
    rows = [json.loads(line) for line in one.file("heldout.jsonl").read_text().splitlines()]
    two = shelf.rows("conversations", "two", rows[::-1])
    first, second = (questions(config(items=10), [a], []) for a in (one, two))
    assert first.items == second.items and first.digest == second.digest
    assert len(first.items) == 10
    assert all(m["role"] == "user" for q in first.items for m in q.messages)
    assert questions(config(items=10, seed=1), [one], []).items != first.items


def test_an_item_that_stands_in_two_places_is_asked_once(shelf) -> None:
    a, b = shelf.conversations("a", ("sums",), 5), shelf.conversations("b", ("sums",), 9)
    assert len(questions(config(), [a, b], []).items) == 9


def test_tasks_choose_and_code_makes_what_the_conversations_lack(shelf) -> None:
    talks = shelf.conversations("talks", ("sums", "names"), 4)
    found = questions(config(tasks=["names", "lookup"], items=4), [], [talks])
    assert found.per_task() == {"names": 4, "lookup": 4}
    titles = {title for title, _ in found.documents}
    assert len(titles) > 4  # the documents that answer, and others to confuse them with
    assert found.sources == ["talks", "lookup, made by code from seed 0"]


def test_without_conversations_code_makes_all_kinds() -> None:
    assert set(questions(config(items=3), [], []).per_task()) == {"sums", "identity", "names", "lookup", "python"}


def test_items_from_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "The answer is 4."}],
         "answer": "4", "check": "number", "kind": "mine"},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
    ]  # fmt: skip
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = questions(config(), [Foreign(path, "0")], [])
    assert [(q.task, q.text, q.answer) for q in found.items] == [("mine", "2+2?", "4")]


def test_a_damaged_line_is_named(shelf) -> None:
    talks = shelf.conversations("talks", ("sums",), 3)
    path = talks.path / "heldout.jsonl"
    text = path.read_text()
    path.write_text("{" + text[1:].replace('"messages"', "messages  ", 1))
    with pytest.raises(UserError, match=r"heldout\.jsonl:1: not JSON"):
        questions(config(), [talks], [])
    bad = shelf.rows("conversations", "bad", [{"messages": [], "answer": "1", "check": "number"}])
    with pytest.raises(UserError, match="an item needs"):
        questions(config(), [bad], [])
    odd = shelf.rows(
        "conversations", "odd", [{"messages": [{"role": "user", "content": "?"}], "answer": "", "check": "vibes"}]
    )
    with pytest.raises(UserError, match="check is 'vibes'"):
        questions(config(), [odd], [])


def test_lone_surrogates_do_not_reach_a_tokenizer(shelf) -> None:
    rows = [{"messages": [{"role": "user", "content": "a\ud800b"}], "answer": "\udfff", "check": "exact", "id": "1"}]
    found = questions(config(), [_put(shelf, rows)], [])
    assert found.items[0].text == "a?b" and found.digest


def _put(shelf, rows) -> Artifact:
    return shelf.rows("conversations", "hostile", rows)


def test_an_answer_that_is_a_number_counts_as_its_text(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "The answer is 4."}]
    (tmp_path / "mine.jsonl").write_text(json.dumps({"messages": turns, "answer": 4, "check": "number"}) + "\n")
    found = questions(config(), [Foreign(tmp_path / "mine.jsonl", "0")], [])
    assert [q.answer for q in found.items] == ["4"]
