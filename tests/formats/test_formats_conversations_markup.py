"""Conversations in the markup of models, and message trees that come as single messages."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.formats.conversations import read_conversations
from llmctl.formats.markup import split_markup
from llmctl.formats.turns import Unusable

TALK = [
    ("user", "what is 2+2? "),
    ("assistant", "2+2=4"),
    ("user", "what if It was *?"),
    ("assistant", "2*2=4!\n\nSame."),
]
WRITTEN = {
    "im_sep text": lambda turns: "".join(f"<|im_start|>{r}<|im_sep|>{c}<|im_end|>" for r, c in turns),
    "ChatML text": lambda turns: "".join(f"<|im_start|>{r}\n{c}<|im_end|>\n" for r, c in turns),
    "Llama 3 text": lambda turns: (
        "<|begin_of_text|>"
        + "".join(f"<|start_header_id|>{r}<|end_header_id|>\n\n{c.strip()}<|eot_id|>" for r, c in turns)
    ),
}


def said(messages: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(m["role"], m["content"]) for m in messages]


@pytest.mark.parametrize("form", WRITTEN)
def test_a_text_in_markup_is_its_turns(tmp_path: Path, form: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": WRITTEN[form](TALK)}) + "\n")
    found = read_conversations(file)
    wanted = [(r, c.strip() if form.startswith("Llama") else c) for r, c in TALK]
    assert found.format == form and said(found.rows[0]["messages"]) == wanted


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("between", ["\n\n", "<|endoftext|>", "\n  \n\n<|endoftext|>\n"])
def test_a_file_of_text_holds_one_behind_another(tmp_path: Path, form: str, between: str) -> None:
    file = tmp_path / "a.txt"
    one, two = WRITTEN[form](TALK), WRITTEN[form](TALK[2:])
    file.write_text(f"\n{one}{between}{two}\n")
    found = read_conversations(file)
    assert [len(row["messages"]) for row in found.rows] == [4, 2] and found.format == form and not found.skipped


def test_an_open_turn_is_a_prompt_and_left_out() -> None:
    text = WRITTEN["im_sep text"](TALK) + "<|im_start|>assistant<|im_sep|>"
    assert said(split_markup(text)) == TALK
    cut = said(split_markup("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello"))
    assert cut == [("user", "hi"), ("assistant", "hello")]


def test_tool_calls_become_parts_of_the_assistants_turn_only() -> None:
    call = "Let me see.<|python_start|>1+1<|python_end|><|output_start|>2<|output_end|>It is 2."
    parts = split_markup(WRITTEN["im_sep text"]([("user", call), ("assistant", call)]))
    assert parts[0]["content"] == call
    assert [(p["type"], p["text"]) for p in parts[1]["content"]] == [
        ("text", "Let me see."), ("python", "1+1"), ("output", "2"), ("text", "It is 2.")]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<|im_start|>user<|im_sep|>a<|im_end|>stray<|im_start|>assistant<|im_sep|>b<|im_end|>", "between two turns"),
        ("<|im_start|>user<|im_sep|>a<|im_start|>assistant<|im_sep|>b<|im_end|>", "before the last one has ended"),
        ("<|im_start|>user<|im_sep|>a<|im_end|><|im_start|>assistant<|im_sep|>b<|im_end|>stray", "behind the last"),
        ("<|im_start|>alien<|im_sep|>a<|im_end|>", "unknown role"),
    ],
)
def test_damaged_markup_is_named_by_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        split_markup(text)
    file = tmp_path / "a.txt"
    file.write_text(f"{WRITTEN['im_sep text'](TALK)}\n\n{text}\n")
    found = read_conversations(file)
    assert len(found.rows) == 1 and [s.line for s in found.skipped] == [5] and why in found.skipped[0].why


@pytest.mark.parametrize("text", ["", "hello", "about <|im_start|>user<|im_sep|>x", "<|im_start|>", "<|im_end|>"])
def test_other_text_is_no_markup(text: str) -> None:
    assert split_markup(text) == []


@given(
    st.lists(st.sampled_from(["<|im_start|>", "<|im_sep|>", "<|im_end|>", "user", "assistant", "\n", "x"]), max_size=12)
)
def test_no_text_whatever_breaks_it(pieces: list[str]) -> None:
    with contextlib.suppress(Unusable):
        split_markup("".join(pieces))


def node(ident: str, parent: str | None, role: str, rank: int | None = None, **more: Any) -> dict[str, Any]:
    return {"message_id": ident, "parent_id": parent, "role": role, "text": f"says {ident}", "rank": rank, **more}


def test_messages_that_name_their_parents_are_trees(tmp_path: Path) -> None:
    rows = [
        node("a2", "q", "assistant", 0), node("q", None, "prompter"), node("a1", "q", "assistant", 1),
        node("lost", "nowhere", "assistant"), node("q2", "a2", "prompter"), node("a3", "q2", "assistant"),
        node("gone", "q", "assistant", -1, deleted=True),
    ]  # fmt: skip
    file = tmp_path / "m.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    best = read_conversations(file)
    assert [c.split()[1] for _, c in said(best.rows[0]["messages"])] == ["q", "a2", "q2", "a3"]
    assert best.format == "oasst tree" and [(s.line, "nowhere" in s.why) for s in best.skipped] == [(4, True)]
    every = read_conversations(file, trees="all").rows
    assert sorted(len(row["messages"]) for row in every) == [2, 4]


def test_what_has_nothing_to_train_on_is_told_from_what_cannot_be_read(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"messages": 3},
    ]
    file = tmp_path / "m.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = read_conversations(file)
    assert [s.line for s in found.skipped] == [2, 3] and [s.line for s in found.silent] == [2]
    file.write_text(json.dumps(rows[1]))
    with pytest.raises(UserError, match="no assistant turn"):
        read_conversations(file)


def test_ultrachat_as_it_is_published_in_both_forms(tmp_path: Path) -> None:
    words = ["Hello?", "Hi.", "More?", "Sure."]
    turns = [{"role": ("user", "assistant")[i % 2], "content": w} for i, w in enumerate(words)]
    for row in ({"id": "0", "data": words}, {"prompt": "Hello?", "prompt_id": "x", "messages": turns}):
        file = tmp_path / "u.jsonl"
        file.write_text(json.dumps(row))
        assert read_conversations(file).rows[0]["messages"] == turns


def test_parquet_and_where_it_is_damaged(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    pq.write_table(pa.Table.from_pylist([{"prompt": "hi", "messages": turns}] * 3), tmp_path / "train.parquet")
    assert [row["messages"] for row in read_conversations(tmp_path).rows] == [turns] * 3
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing more")
    found = read_conversations(tmp_path)
    assert len(found.rows) == 3 and str(found.skipped[0]).startswith("b.parquet:1: the file is damaged")


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(repo: str, config: str | None, split: str, streaming: bool) -> list[dict[str, Any]]:
        asked.append((repo, config, split, streaming))
        if repo == "org/none":
            raise ConnectionError("no such thing\nat all")
        return [{"data": ["hi", "hello"]}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_conversations("hf:org/talks").format == "ultrachat"
    read_conversations("hf:org/talks:small@train_sft")
    assert asked == [("org/talks", None, "train", True), ("org/talks", "small", "train_sft", True)]
    with pytest.raises(UserError, match="hub: no such thing") as told:
        read_conversations("hf:org/none")
    assert "hf:org/none" in str(told.value)
