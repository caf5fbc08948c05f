"""Comparisons in everybody's forms, ties, and single judgements gathered by prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.errors import UserError
from llmctl.formats.comparisons import Comparisons, read_comparisons

ASK = [{"role": "user", "content": "q"}]
BEST, WORST = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
ROW = {"prompt": ASK, "responses": ["good", "bad"], "ranking": [0, 1]}

SCORED = [{"output": "good", "score": 0.9}, {"output": "bad", "score": 0.1}]
VOTES = {"annotator1": 1, "annotator2": 1, "annotator3": 0}


def read(tmp_path: Path, *rows: Any) -> Comparisons:
    path = tmp_path / "x.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return read_comparisons(path)


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("ranking", ROW),
        ("ranking", {"prompt": "q", "responses": ["good", "bad"], "ranking": [3, 7]}),
        ("scored replies", {"instruction": "q", "responses": SCORED}),
        ("pair", {"prompt": "q", "chosen": "good", "rejected": "bad"}),
        ("pair", {"instruction": "q", "input": "", "output": "x", "chosen": "good", "rejected": "bad"}),
        ("pair", {"prompt": ASK, "chosen": [BEST], "rejected": [WORST]}),
        ("pair", {"chosen": [*ASK, BEST], "rejected": [*ASK, WORST]}),
        ("pair", {"prompt": "q", "chosen": [*ASK, BEST], "rejected": [*ASK, WORST]}),
        ("pair", {"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"}),
        ("pair", {"conversations": [{"from": "human", "value": "q"}], "chosen": BEST, "rejected": WORST}),
        ("pandalm", {"instruction": "q", "response1": "good", "response2": "bad", **VOTES}),
    ],
)
def test_every_form(tmp_path: Path, form: str, row: dict[str, Any]) -> None:
    found = read(tmp_path, row)
    assert found.rows == [ROW] and found.format == form and found.pairs == 1


def test_ties_have_equal_ranks_and_make_no_pair(tmp_path: Path) -> None:
    tied = read(tmp_path, {"prompt": "q", "responses": ["a", "b", "c"], "ranking": [1, 0, 1]})
    assert tied.rows[0]["ranking"] == [1, 0, 1] and tied.pairs == 2
    votes = {"instruction": "q", "response1": "a", "response2": "b", "annotator1": 0, "annotator2": 0, "annotator3": 2}
    assert read(tmp_path, votes).rows[0]["ranking"] == [0, 0]


def test_a_tree_gives_a_ranking_wherever_replies_are_ranked(tmp_path: Path) -> None:
    def reply(text: str, **more: Any) -> dict[str, Any]:
        return {"role": "assistant", "text": text, "replies": [], **more}

    deeper = {"role": "prompter", "text": "q2", "replies": [reply("x", rank=1), reply("y", rank=0)]}
    first = {**reply("a", rank=0), "replies": [deeper]}
    tree = {"prompt": {"role": "prompter", "text": "q", "replies": [first, reply("b", rank=1), reply("unranked")]}}
    found = read(tmp_path, tree)
    assert [(r["responses"], r["ranking"]) for r in found.rows] == [(["a", "b"], [0, 1]), (["x", "y"], [1, 0])]
    assert [m["content"] for m in found.rows[1]["prompt"]] == ["q", "a", "q2"]


def test_single_judgements_are_gathered_by_prompt(tmp_path: Path) -> None:
    rows = [
        {"messages": [*ASK, turn("assistant", "bad")], "label": False},
        {"messages": [*ASK, turn("assistant", "good")], "label": True},
        {"messages": [turn("user", "other"), turn("assistant", "x")], "label": True},
    ]
    found = read(tmp_path, *rows)
    assert [(r["responses"], r["ranking"]) for r in found.rows] == [(["bad", "good"], [1, 0])]
    assert [(s.line, s.why[:8]) for s in found.skipped] == [(3, "the only")]
    with pytest.raises(UserError, match="nothing to compare it with"):
        read(tmp_path, rows[2])


BAD = [
    "nope",
    '{"prompt": "q", "responses": ["a", "b"], "ranking": [0]}',
    '{"prompt": "q", "responses": ["a", "b"], "ranking": [0, "x"]}',
    '{"prompt": "q", "responses": ["a", "b"], "ranking": [0, NaN]}',
    '{"prompt": "q", "responses": ["a", "a"], "ranking": [0, 1]}',
    '{"prompt": "q", "responses": ["a", " "], "ranking": [0, 1]}',
    '{"prompt": "q", "responses": ["a", null], "ranking": [0, 1]}',
    '{"prompt": "", "responses": ["a", "b"], "ranking": [0, 1]}',
    '{"prompt": null, "chosen": "a", "rejected": "b"}',
    '{"prompt": [], "chosen": "a", "rejected": "b"}',
    '{"prompt": "q", "chosen": 3, "rejected": 4}',
    '{"chosen": "a", "rejected": "b"}',
    '{"chosen": [], "rejected": []}',
    '{"conversations": [], "chosen": {}, "rejected": {}}',
    '{"chosen": "\\n\\nHuman: x\\n\\nAssistant: a", "rejected": "\\n\\nHuman: y\\n\\nAssistant: b"}',
    '{"instruction": "q", "responses": ["a", "b"]}',
    '{"instruction": "q", "response1": "a", "response2": "b", "annotator1": 1, "annotator2": 2}',
    '{"instruction": "q", "response1": "a", "response2": "b"}',
    '{"messages": [], "label": true}',
    '{"context": "[]", "generation": "3", "reward": 1}',
    '{"instruction": "q", "output": "a"}',
]


def test_what_is_wrong_with_replies_is_said(tmp_path: Path) -> None:
    bad = [["a", "a"], ["", "b"], [" ", ""], ["", "a", "a"], ["a"]]
    rows = [{"prompt": "q", "responses": r, "ranking": list(range(len(r)))} for r in bad]
    why = [s.why for s in read(tmp_path, ROW, *rows).skipped]
    assert why == ["its replies are equal", "its replies are empty", "its replies are empty",
                   "its replies are empty and equal", "it has a single reply"]  # fmt: skip


def test_replies_left_out_of_a_ranking_are_counted_and_the_best_rank_of_equal_ones_counts(tmp_path: Path) -> None:
    found = read(tmp_path, {"prompt": "q", "responses": ["a", "", "b", "a"], "ranking": [2, 3, 1, 0]})
    assert (found.rows[0]["responses"], found.rows[0]["ranking"]) == (["a", "b"], [0, 1])
    assert found.replies == {"empty": 1, "equal to another": 1}


@pytest.mark.parametrize(("margin", "kept"), [(0.5, 0.5), (2, 2.0), (-1, None), ("x", None), (True, None)])
def test_a_margin_is_kept_where_it_is_one(tmp_path: Path, margin: Any, kept: float | None) -> None:
    found = read(tmp_path, {"prompt": "q", "chosen": "good", "rejected": "bad", "margin": margin})
    assert found.rows[0].get("margin") == kept


def test_hh_rlhf_with_several_turns_as_published(tmp_path: Path) -> None:
    before = "\n\nHuman: hello\n\nAssistant: Yes?\n\nHuman: two\nlines: a\n\nAssistant:"
    found = read(tmp_path, {"chosen": f"{before} good\n\nthere", "rejected": f"{before} bad"}).rows[0]
    assert found["prompt"] == [turn("user", "hello"), turn("assistant", "Yes?"), turn("user", "two\nlines: a")]
    assert (found["responses"], found["ranking"]) == (["good\n\nthere", "bad"], [0, 1])


def test_bad_rows_are_named_and_the_good_ones_kept(tmp_path: Path) -> None:
    found = read(tmp_path, ROW, *BAD, ROW)
    assert found.rows == [ROW, ROW]
    assert [s.line for s in found.skipped] == list(range(2, 2 + len(BAD)))
    with pytest.raises(UserError, match="no comparison in it"):
        read(tmp_path, *BAD)


@pytest.mark.parametrize(
    ("name", "form", "rows", "pairs"),
    [
        ("pref/alpaca_eval_kwise.jsonl.gz", "scored replies", 509, 13465),
        ("pref/dpo_en_demo.jsonl.gz", "pair", 214, 214),
        ("pref/hh_rlhf_harmless_base.jsonl.gz", "pair", 1789, 1789),
        ("pref/kto_en_demo.jsonl.gz", "kto", 3, 1),
        ("pref/llms_from_scratch_preference.jsonl.gz", "pair", 1094, 1094),
        ("pref/pandalm_testset.jsonl.gz", "pandalm", 932, 829),
        ("pref/taskmaster4_reward.jsonl.gz", "judged action", 316, 478),
        ("chat/oasst_trees.jsonl.gz", "oasst tree", 0, 0),
    ],
)
def test_real_files(data: Path, name: str, form: str, rows: int, pairs: int) -> None:
    found = read_comparisons(data / name)
    assert found.format == form
    assert not rows or (len(found.rows), found.pairs) == (rows, pairs)
    for row in found.rows:
        assert len(row["responses"]) == len(row["ranking"]) >= 2 and min(row["ranking"]) == 0
        assert row["prompt"][-1]["role"] != "assistant" and all(
            isinstance(r, str) and r.strip() for r in row["responses"]
        )


def test_what_holds_no_comparison_is_refused_in_one_line(data: Path) -> None:
    with pytest.raises(UserError, match="no comparison in it"):
        read_comparisons(data / "chat" / "alpaca_subset.jsonl.gz")
