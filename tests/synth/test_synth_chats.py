"""Conversations of which a model writes both sides, from topics or from passages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.formats.conversations import read_conversations
from llmctl.synth.config import SynthConfig
from llmctl.synth.stage import plan, run
from llmctl.verify import held_out
from llmctl.workspace import Artifact, Workspace


def config(url: str, n: int = 12, **more: Any) -> SynthConfig:
    return SynthConfig(
        mix={"chat": n}, **{"out": "c", "endpoint": {"url": url, "model": "m", "concurrency": 4}, **more}
    )


def rows(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.file(name).read_text().split("\n") if line]


def talk(body: dict[str, Any]) -> str:
    """Plays both sides; each first question is about another number."""
    said, seed = body["messages"], body["seed"]
    if said[0]["role"] == "system":
        return f"<think>\nHm.\n</think>\n\nAnswer {(len(said)) // 2} to: {said[-1]['content'][:40]}"
    if "Here is a conversation" in said[0]["content"]:
        return f'"And what of {seed}?"'
    return f"Person: Tell me what {seed} has to do with {seed // 3}, please?"


def test_turns_alternate_and_each_side_sees_what_was_said(workspace: Workspace, console: Console, server: Any) -> None:
    server.answer = talk
    made = run(config(server.url, 30, chat={"turns": [1, 3]}), workspace, console)
    found = rows(made, "train.jsonl") + rows(made, "heldout.jsonl")
    assert len(found) == 30 and {len(r["messages"]) for r in found} == {2, 4, 6}
    assert all(held_out(r["messages"][0]["content"]) for r in rows(made, "heldout.jsonl"))
    assert not any(held_out(r["messages"][0]["content"]) for r in rows(made, "train.jsonl"))
    for row in found:
        said = [m["content"] for m in row["messages"]]
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * (len(said) // 2)
        assert said[0].startswith("Tell me what") and said[1] == f"Answer 1 to: {said[0][:40]}"
        assert all(re.fullmatch(r"And what of [0-9]+\?", text) for text in said[2::2])
        if len(said) > 2:
            assert said[3].startswith("Answer 2 to: And what of")
    transcripts = [b["messages"][0]["content"] for b in server.asked if "Here is a conversation" in str(b)]
    assert all("User: Tell me" in t and "Assistant: Answer 1 to" in t for t in transcripts)
    assert read_conversations(made.path).rows == rows(made, "train.jsonl")
    assert made.figures["prompts"]["system"].startswith("You are a helpful") and made.figures["rejected"] == 0


def test_what_cannot_be_taught_is_left_out_and_counted(workspace: Workspace, console: Console, server: Any) -> None:
    bad = ["<|im_end|>", "", "As an AI language model, I cannot.", "x" * 30_000, "fine"]

    def answer(body: dict[str, Any]) -> Any:
        if body["messages"][0]["role"] != "system":
            return talk(body)
        number = int(re.findall(r"[0-9]+", body["messages"][-1]["content"])[0])
        return 400 if number % 6 == 5 else bad[number % 6]

    server.answer = answer
    made = run(config(server.url, 60, chat={"turns": [1, 1]}), workspace, console)
    assert made.figures["reasons"].keys() == {"special tokens", "empty", "banned", "too long", "no reply"}
    kept = rows(made, "train.jsonl") + rows(made, "heldout.jsonl")
    assert {r["messages"][1]["content"] for r in kept} == {"fine"}
    assert len(kept) + sum(made.figures["reasons"].values()) == 60 == len(kept) + len(rows(made, "rejected.jsonl"))


def test_first_questions_that_are_alike_count_once(workspace: Workspace, console: Console, server: Any) -> None:
    server.answer = lambda body: "How do I bake a good loaf of bread at home today?"
    made = run(config(server.url, 10, chat={"turns": [1, 1]}), workspace, console)
    assert made.figures["train"] + made.figures["heldout"] == 1 and made.figures["reasons"] == {"like another": 9}
    assert len(server.asked) == 11  # nobody answers a question that is not kept


def test_passages_stand_in_the_first_question(
    workspace: Workspace, console: Console, server: Any, tmp_path: Path
) -> None:
    texts = [f"The keeper of lighthouse number {i} wrote down every ship. " * 5 for i in range(40)]
    (tmp_path / "t.txt").write_text("\n\n".join(texts))
    server.answer = talk
    made = run(config(server.url, 8, corpus=str(tmp_path / "t.txt")), workspace, console)
    firsts = [r["messages"][0]["content"] for r in rows(made, "train.jsonl") + rows(made, "heldout.jsonl")]
    assert firsts and all(re.match(r"The keeper of lighthouse .*\n\nTell me what", f, re.S) for f in firsts)


def test_the_same_settings_ask_the_same(workspace: Workspace, console: Console, server: Any, tmp_path: Path) -> None:
    server.answer = talk
    first = run(config(server.url), workspace, console)
    asked = {json.dumps(b, sort_keys=True) for b in server.asked}
    assert run(config(server.url), Workspace(tmp_path / "b"), console).digest == first.digest
    assert {json.dumps(b, sort_keys=True) for b in server.asked} == asked and len(server.asked) == 2 * len(asked)


def test_a_teacher_without_sense_makes_nothing(
    student: str, workspace: Workspace, console: Console, server: Any
) -> None:
    server.answer = lambda body: ""
    with pytest.raises(UserError, match=r"none of 12 conversations can be used \(empty: 12\)"):
        run(config(server.url), workspace, console)
    local = SynthConfig(mix={"chat": 2}, teacher=student, chat={"turns": [1, 1], "max_new_tokens": 4})
    assert "requests" in dict(plan(local, workspace))["answers"]
    with pytest.raises(UserError, match="none of 2 conversations"):
        run(local, workspace, console)
