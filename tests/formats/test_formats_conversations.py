"""Conversations in everybody's forms, and rows that are broken in every way."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.formats.conversations import read_conversations

USER, REPLY = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
GOOD = {"messages": [USER, REPLY]}
HH = "\n\nHuman: hi\n\nAssistant: "
SAID = '[{"role": "user", "text": "hi"}]'


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def messages_of(tmp_path: Path, row: dict[str, Any], **options: Any) -> list[tuple[str, Any]]:
    found = read_conversations(write(tmp_path / "x.jsonl", row), **options)
    return [(m["role"], m["content"]) for m in found.rows[0]["messages"]]


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("messages", GOOD),
        ("sharegpt", {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}),
        ("turns", {"turns": [{"speaker": "user", "text": "hi"}, {"speaker": "assistant", "text": "hello"}]}),
        ("ultrachat", {"id": "1", "data": ["hi", "hello"]}),
        ("alpaca", {"instruction": "hi", "input": "", "output": "hello"}),
        ("alpaca", {"instruction": "hi", "response": "hello"}),
        ("dolly", {"instruction": "hi", "context": "", "response": "hello", "category": "open_qa"}),
        ("prompt and reply", {"prompt": "hi", "response": "hello"}),
        ("prompt and reply", {"prompt": [USER], "completion": [REPLY]}),
        ("prompt and reply", {"prompt": "Below.\n\n### Instruction:\nhi\n\n### Response:\n", "response": "hello"}),
        ("question and answer", {"question": "hi", "answer": "hello"}),
        ("transcript and reply", {"input": "### Human: hi ### Assistant:", "output": "hello"}),
        ("transcript", {"text": "### Human: hi ### Assistant: hello"}),
        ("hh-rlhf chosen", {"chosen": HH + "hello", "rejected": HH + "no"}),
        ("judged action", {"context": SAID, "generation": '{"role": "agent", "text": "hello"}', "reward": 1.0}),
    ],
)  # fmt: skip
def test_every_form(tmp_path: Path, form: str, row: dict[str, Any]) -> None:
    found = read_conversations(write(tmp_path / "x.jsonl", row))
    assert found.rows[0]["messages"] == [USER, REPLY]
    assert found.format == form and not found.skipped


def test_tool_calls_of_sharegpt_and_their_tools(tmp_path: Path) -> None:
    turns = [("human", "sum"), ("function_call", "{}"), ("observation", "3"), ("gpt", "it is 3")]
    row = {"conversations": [{"from": a, "value": b} for a, b in turns], "tools": '[{"name": "sum"}]'}
    assert messages_of(tmp_path, row) == [
        ("system", 'Tools: [{"name": "sum"}]'),
        ("user", "sum"),
        ("assistant", "{}"),
        ("tool", "3"),
        ("assistant", "it is 3"),
    ]


def test_the_rules_for_turns(tmp_path: Path) -> None:
    said = "system S, assistant welcome, user a, user b, assistant c, assistant d, user bye"
    row = {"messages": [{"role": turn.split()[0], "content": turn.split()[1]} for turn in said.split(", ")]}
    assert messages_of(tmp_path, row) == [("system", "S"), ("user", "a\nb"), ("assistant", "c\nd")]


def test_our_own_rows_keep_parts_and_what_is_known_of_them(tmp_path: Path) -> None:
    parts = [{"type": "python", "text": "print(3)"}, {"type": "output", "text": "3"}, {"type": "text", "text": "3."}]
    row = {
        "messages": [USER, {"role": "assistant", "content": parts}],
        "kind": "python",
        "answer": "3",
        "check": "number",
    }
    found = read_conversations(write(tmp_path / "x.jsonl", row)).rows[0]
    assert found == row


def test_a_tree_gives_its_best_path_or_all(tmp_path: Path) -> None:
    def node(role: str, text: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"role": role, "text": text, "replies": list(replies), **more}

    tree = {
        "prompt": node(
            "prompter",
            "q",
            node("assistant", "worse", rank=1),
            node("assistant", "best", node("prompter", "q2", node("assistant", "end")), rank=0),
            node("assistant", "gone", rank=2, deleted=True),
        )
    }
    path = write(tmp_path / "x.jsonl", tree)
    assert [m["content"] for m in read_conversations(path).rows[0]["messages"]] == ["q", "best", "q2", "end"]
    every = read_conversations(path, trees="all").rows
    assert [[m["content"] for m in row["messages"]] for row in every] == [["q", "worse"], ["q", "best", "q2", "end"]]


def test_a_tree_deeper_than_the_stack(tmp_path: Path) -> None:
    text = '{"role":"prompter","text":"q","replies":[' * 300 + "]}" * 300
    tree = '{"prompt":' + text.replace("prompter", "assistant", 150).replace("assistant", "prompter", 1) + "}"
    assert read_conversations(write(tmp_path / "x.jsonl", tree)).rows


def test_placeholders_are_filled_or_reported(tmp_path: Path) -> None:
    row = {"instruction": "who?", "output": "I am {{name}} by {{author}}."}
    path = write(tmp_path / "x.jsonl", row)
    assert read_conversations(path).placeholders == {"name", "author"}
    found = read_conversations(path, values={"name": "Wren", "author": "Ada"})
    assert found.rows[0]["messages"][1]["content"] == "I am Wren by Ada." and not found.placeholders


BAD = [
    "{not json",
    "[1, 2]",
    '"text"',
    "null",
    "NaN",
    "[" * 100_000,
    '{"a":' * 5000,
    "1" * 10_000,
    '{"messages": null}',
    '{"messages": []}',
    '{"messages": "hi"}',
    '{"messages": [1]}',
    '{"messages": [{"role": "user", "content": "hi"}]}',
    '{"messages": [{"role": "alien", "content": "hi"}, {"role": "assistant", "content": "x"}]}',
    '{"messages": [{"role": ["user"], "content": "hi"}, {"role": "assistant", "content": "x"}]}',
    '{"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "x"}]}',
    '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "  "}]}',
    '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "\\ud800"}]}',
    '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [{"type": "image"}]}]}',
    '{"messages": [{"role": "user", "content": [{"type": "output", "text": "x"}]}, {"role": "gpt", "content": "x"}]}',
    '{"conversations": {"from": "human"}}',
    '{"conversations": [{"from": "gpt", "value": "hello"}]}',
    '{"instruction": "hi", "input": 3, "output": "x"}',
    '{"instruction": "hi", "output": 7}',
    '{"prompt": 3, "response": "x"}',
    '{"prompt": {"replies": [3]}}',
    '{"prompt": {"replies": [{"replies": "x"}], "role": "prompter", "text": "q"}}',
    '{"context": "{", "generation": "{}", "reward": 1}',
    '{"context": "3", "generation": "{}", "reward": 1}',
    '{"unknown": 1}',
    "{}",
]


def test_bad_rows_are_named_by_file_and_line_and_the_good_ones_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "mixed.jsonl", GOOD, *BAD, "", GOOD)
    found = read_conversations(path)
    assert len(found.rows) == 2
    assert [s.line for s in found.skipped] == list(range(2, 2 + len(BAD)))
    assert all(s.file == str(path) and s.why for s in found.skipped)


def test_a_file_without_conversations_is_refused_with_its_first_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mixed\.jsonl:1: not JSON"):
        read_conversations(write(tmp_path / "mixed.jsonl", *BAD))
    with pytest.raises(UserError, match="it is empty"):
        read_conversations(write(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match="llmctl rm"):
        read_conversations(write(tmp_path / "pref.jsonl", {"prompt": "x", "responses": ["a", "b"], "ranking": [0, 1]}))
    with pytest.raises(UserError, match="no such file"):
        read_conversations(tmp_path / "absent.jsonl")


def test_arrays_gzip_folders_and_splits(tmp_path: Path) -> None:
    (tmp_path / "array.json").write_text(json.dumps([GOOD, 3, GOOD], indent=1))
    array = read_conversations(tmp_path / "array.json")
    assert len(array.rows) == 2 and array.skipped[0].line == 2
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    assert read_conversations(tmp_path / "bom.jsonl").skipped[0].why == "not JSON: byte 0 is not UTF-8"
    assert len(read_conversations(tmp_path).rows) == 4
    write(tmp_path / "train.jsonl", GOOD)
    write(tmp_path / "heldout.jsonl", GOOD, GOOD)
    assert len(read_conversations(tmp_path).rows) == 1
    assert len(read_conversations(tmp_path, split="heldout").rows) == 2


def test_a_cut_gzip_keeps_what_came_before(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps({**GOOD, "id": str(i) * 50}) + "\n" for i in range(5000)).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    found = read_conversations(tmp_path / "cut.jsonl.gz")
    assert 0 < len(found.rows) < 5000
    assert "damaged from here on" in found.skipped[-1].why


WORDS = (  # noqa: SIM905
    "messages role content user conversations from value turns speaker text data instruction input output prompt "
    "response replies chosen rejected context generation reward tools rank type"
).split(" ")
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(row=st.dictionaries(st.sampled_from(WORDS), json_values, max_size=5))
def test_no_row_whatever_makes_it_raise(tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]) -> None:
    path = write(tmp_path_factory.mktemp("any") / "x.jsonl", GOOD, row)
    found = read_conversations(path, trees="all")
    assert len(found.rows) + len(found.skipped) >= 2 or "prompt" in row


@pytest.mark.parametrize(
    ("name", "form", "rows", "skipped"),
    [
        ("alpaca_subset.jsonl.gz", "alpaca", 1591, 0),
        ("code_alpaca_2k.jsonl.gz", "alpaca", 1631, 2),
        ("dolly_hhrlhf_sample.jsonl.gz", "prompt and reply", 808, 0),
        ("fastchat_dummy_conversation.jsonl.gz", "sharegpt", 500, 0),
        ("glaive_toolcall_en_demo.jsonl.gz", "sharegpt", 300, 0),
        ("gpteacher_codegen.jsonl.gz", "alpaca", 4535, 0),
        ("gpteacher_roleplay.jsonl.gz", "alpaca", 1923, 0),
        ("identity_template.jsonl", "alpaca", 91, 0),
        ("llms_from_scratch_instructions.jsonl.gz", "alpaca", 1100, 0),
        ("oasst1_validation_conversations.jsonl.gz", "transcript and reply", 663, 0),
        ("oasst_trees.jsonl.gz", "oasst tree", 68, 0),
        ("taskmaster4_dialogs.jsonl.gz", "turns", 500, 0),
    ],
)
def test_real_files(data: Path, name: str, form: str, rows: int, skipped: int) -> None:
    found = read_conversations(data / "chat" / name)
    assert (found.format, len(found.rows), len(found.skipped)) == (form, rows, skipped)
    for row in found.rows:
        roles = [m["role"] for m in row["messages"] if m["role"] != "system"]
        assert roles[0] == "user" and roles[-1] == "assistant"
        assert all(a != b for a, b in pairwise(roles))
