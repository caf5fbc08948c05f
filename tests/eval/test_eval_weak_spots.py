"""The weak spots by name, and sums with no tokens to think in."""

from __future__ import annotations

import json

from llmctl.console import Console
from llmctl.eval.config import EvalConfig
from llmctl.eval.questions import questions
from llmctl.eval.stage import run
from llmctl.workspace import Workspace


def test_the_names_people_use_stand_for_kinds() -> None:
    found = questions(EvalConfig(models=["m"], tasks=["weak_spots", "unknown_names", "tools"], items=3), [], [])
    assert list(found.per_task()) == [
        *("letters", "spelling", "decimals", "sums", "sums_in_one_token", "names", "identity", "lookup", "python")
    ]
    sums = {q.id: q for q in found.items if q.task == "sums"}
    at_once = {q.id: q for q in found.items if q.task == "sums_in_one_token"}
    assert sums.keys() == at_once.keys()  # the same sums: the difference is what thinking is worth
    assert all(q.messages == sums[i].messages and q.prefix == "The answer is" for i, q in at_once.items())


def test_a_reply_begins_with_what_was_put_into_the_models_mouth(shelf, workspace: Workspace, console: Console) -> None:
    shelf.conversations("talks", ("sums",))
    shelf.model("chat", "sft", ["talks"])
    settings = {"models": ["chat"], "tasks": ["sums_in_one_token"], "items": 4, "max_new_tokens": 6}
    made = run(EvalConfig(**settings, precision="fp32"), workspace, console)
    rows = [json.loads(line) for line in made.file("items/chat.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(r["reply"].startswith("The answer is") for r in rows)
    scores = json.loads(made.file("results.json").read_text())["scores"]
    assert {s["task"] for s in scores} == {"all", "sums_in_one_token"} and all("stderr" in s for s in scores)


def test_programs_among_the_items_are_judged_in_the_sandbox(shelf, workspace: Workspace, console: Console) -> None:
    shelf.model("chat", "sft")
    settings = {"models": ["chat"], "tasks": ["code"], "items": 2, "max_new_tokens": 4, "precision": "fp32"}
    made = run(EvalConfig(**settings), workspace, console)
    assert json.loads(made.file("results.json").read_text())["scores"][0]["value"] == 0.0
