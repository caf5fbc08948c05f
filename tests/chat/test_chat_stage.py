"""Answers from the shell and as a recorded step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_tiny import Pretrain, put_model, tiny

from llmctl.chat import stage
from llmctl.chat.config import ChatConfig
from llmctl.chat.oneshot import answer
from llmctl.chat.speaker import load_speaker
from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.model.folder import save_model
from llmctl.workspace import Workspace


def config(**settings: object) -> ChatConfig:
    return ChatConfig.model_validate({"model": "tiny", "max_new_tokens": 8, "precision": "fp32", **settings})


def test_answers_repeat_with_the_seed_and_differ_without(workspace: Workspace) -> None:
    put_model(workspace, "tiny")
    first = answer(workspace, config(), "Hello", n=3, seed=1)
    assert first == answer(workspace, config(seed=1), "Hello", n=3)
    assert len({a["text"] for a in first}) > 1
    assert first != answer(workspace, config(), "Hello", n=3, seed=2)
    greedy = answer(workspace, config(temperature=0), "Hello", n=2, seed=5)
    assert greedy[0] == greedy[1] == answer(workspace, config(temperature=0), "Hello", seed=6)[0]
    assert set(first[0]) == {"text", "content", "finish", "tokens"} and first[0]["tokens"] <= 8
    json.dumps(first)


def test_the_step_records_its_answers_the_same_each_time(workspace: Workspace, console: Console) -> None:
    put_model(workspace, "tiny")
    asked = config(prompts=["Who are you?", "2 + 2?"], system="Be brief.", out="said")
    made = stage.run(asked, workspace, console)
    rows = [json.loads(line) for line in made.file("train.jsonl").read_text().splitlines()]
    assert [r["messages"][1]["content"] for r in rows] == asked.prompts
    assert [m["role"] for m in rows[0]["messages"]] == ["system", "user", "assistant"]
    assert made.figures["headline"]["label"] == "answer" and made.figures["headline"]["before"] is None
    assert [a["prompt"] for a in made.figures["answers"]] == asked.prompts
    assert stage.run(asked.model_copy(update={"out": "again"}), workspace, console).digest == made.digest
    assert dict(stage.plan(asked, workspace))["prompts"].startswith("2")


def test_who_chats_and_who_continues(workspace: Workspace, tmp_path: Path) -> None:
    put_model(workspace, "tiny")
    put_model(workspace, "base", Pretrain)
    assert load_speaker(workspace, config()).chats
    assert not load_speaker(workspace, config(model="base")).chats
    save_model(tmp_path / "elsewhere", *tiny())
    assert load_speaker(workspace, config(model=str(tmp_path / "elsewhere"))).chats
    save_model(tmp_path / "marked", *tiny(), extra={"chat": False})
    assert not load_speaker(workspace, config(model=str(tmp_path / "marked"))).chats
    (tmp_path / "elsewhere" / "chat_template.jinja").unlink()
    assert not load_speaker(workspace, config(model=str(tmp_path / "elsewhere"))).chats


def test_a_base_model_continues_the_very_text(workspace: Workspace) -> None:
    put_model(workspace, "base", Pretrain)
    (given,) = answer(workspace, config(model="base"), "Once upon \n")
    assert isinstance(given["content"], str) and given["text"] == given["content"]
    assert answer(workspace, config(model="base"), "")[0]["tokens"] > 0


def test_a_search_tool_is_built_from_a_library(workspace: Workspace, tmp_path: Path) -> None:
    put_model(workspace, "tiny")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "Wren.txt").write_text("The wren is a small bird.")
    speaker = load_speaker(workspace, config(search=str(tmp_path / "notes")))
    assert speaker.tools is not None
    assert speaker.tools("search", "small bird") == "Wren: The wren is a small bird."
    assert load_speaker(workspace, config(python=False)).tools is None


def test_mistakes_are_said_in_one_line(workspace: Workspace, console: Console) -> None:
    put_model(workspace, "tiny")
    put_model(workspace, "judge", reward=True)
    for wrong, message in (
        (lambda: answer(workspace, config(), "  \n"), "nothing to answer"),
        (lambda: answer(workspace, config(model="judge"), "a"), "reward model"),
        (lambda: answer(workspace, config(model="tinny"), "a"), "did you mean 'tiny'"),
        (lambda: answer(workspace, config(model="hf:org/name"), "a"), "not in the cache"),
        (lambda: answer(workspace, config(), "long " * 200), "context"),
        (lambda: stage.run(config(), workspace, console), "no prompts"),
    ):
        with pytest.raises(UserError, match=message):
            wrong()
