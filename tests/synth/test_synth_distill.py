"""Distillation and rejection sampling: only what is right, finished and plain is kept, whatever the teacher writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmctl.console import Console
from llmctl.endpoint import Reply
from llmctl.errors import UserError
from llmctl.formats.conversations import read_conversations
from llmctl.synth.config import SynthConfig
from llmctl.synth.distill import right_solutions, shaped, whole
from llmctl.synth.made import Made
from llmctl.synth.stage import plan, run
from llmctl.verify import check, problems
from llmctl.workspace import Artifact, Workspace

ROW = {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": ""}]}
FOUR = {**ROW, "answer": "4", "check": "number"}


def config(url: str, n: int = 12, **more: Any) -> SynthConfig:
    endpoint = {"url": url, "model": "teacher", "concurrency": 4, **more.pop("endpoint", {})}
    return SynthConfig(mix={"distill": n}, **{"out": "d", "heldout": 3, "endpoint": endpoint, **more})


def solve(body: dict[str, Any]) -> str:
    """A teacher that is right, at two lengths, for two seeds of three."""
    total = sum(int(n) for n in re.findall(r"[0-9]+", body["messages"][-1]["content"]))
    if body["seed"] % 3 == 0:
        return f"I guess. The answer is {total + 1}."
    return f"I add them up{' slowly, digit by digit' * (body['seed'] % 3 - 1)}. The answer is {total}."


def rows(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.file(name).read_text().split("\n") if line]


def test_only_right_solutions_are_kept_the_shortest_each(workspace: Workspace, console: Console, server: Any) -> None:
    server.answer = solve
    made = run(config(server.url, 30), workspace, console)
    train = rows(made, "train.jsonl")
    assert all(check(r, r["messages"][-1]["content"]).correct for r in train) and len(train) == made.figures["solved"]
    assert any("slowly" in r["text"] for r in rows(made, "rejected.jsonl"))
    assert made.figures["reasons"].keys() == {"wrong", "right, and like another", "right, and not needed"}
    assert made.figures["right"] == pytest.approx(2 / 3, abs=0.12)
    told = server.asked[0]["messages"]
    assert told[0]["role"] == "system" and told[0]["content"] == made.figures["prompts"]["instruction"]
    assert all(r["messages"][0]["role"] == "user" for r in train)
    asked = {"endpoint": server.url, "model": "teacher", "asked": 120, "tokens_in": 840, "tokens_out": 360}
    assert made.figures["teacher"] == asked
    assert read_conversations(made.path).rows == train and len(rows(made, "heldout.jsonl")) == 3


def test_all_right_solutions_that_differ(workspace: Workspace, console: Console, server: Any) -> None:
    server.answer = solve
    made = run(config(server.url, 20, distill={"keep": "all", "samples": 8}), workspace, console)
    many: dict[str, set[str]] = {}
    for r in rows(made, "train.jsonl"):
        many.setdefault(r["id"], set()).add(r["messages"][-1]["content"])
    assert max(map(len, many.values())) == 2 and len(rows(made, "train.jsonl")) == sum(map(len, many.values()))


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply("The answer is 4."), ""),
        (Reply("The answer is 5."), "wrong"),
        (Reply("The answer is 4.", "length"), "cut at max_new_tokens"),
        (Reply(""), "empty"),
        (Reply(" \n\t"), "empty"),
        (Reply("<|im_end|><|im_start|>user<|im_sep|>hi The answer is 4."), "special tokens"),
        (Reply("[INST] The answer is 4."), "special tokens"),
        (Reply("\x1b[2J The answer is 4."), "special tokens"),
        (Reply("The answer is 4. " * 100_000), "too long"),
        (Reply("I say nothing.", reasoning="The answer is 4."), "wrong"),
        (Reply("<think>The answer is 4.</think>\nI do not know."), "wrong"),
        (Reply("<think>4? The answer is 4."), "thoughts without an end"),
        (Reply("<think>5?</think>\nThe answer is 4."), ""),
        (Reply.failed("HTTP 400: no"), "no reply: HTTP 400: no"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_what_a_teacher_may_write(reply: Reply, why: str) -> None:
    made = Made()
    found = right_solutions(config("http://localhost:1"), FOUR, [reply], made)
    assert [r["why"] for r in made.rejected] == ([why] if why else []) and bool(found) != bool(why)
    assert all(len(r["text"]) <= 2000 for r in made.rejected)


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("2 and 2.\nThe answer is 4.", "think", "<think>2 and 2.</think><answer>4</answer>"),
        ("<think>\nhm, 2, 2\n</think>\nThe answer is 4.", "think", "<think>hm, 2, 2</think><answer>4</answer>"),
        ("<think>hm</think>\nThe answer is 4.", "answer", "The answer is 4."),
        ("<think>hm</think>\nThe answer is 4.", "keep", "<think>hm</think>\nThe answer is 4."),
        ("2+2\n#### 4", "think", "<think>2+2</think><answer>4</answer>"),
    ],
)
def test_the_form_of_a_solution(text: str, form: str, expected: str) -> None:
    assert shaped(text, "4", form) == expected
    assert check({**FOUR, "form": "think"} if form == "think" else FOUR, expected).correct


def test_thoughts_that_come_apart_are_put_before_the_answer() -> None:
    assert whole(Reply("4.", reasoning=" so ")) == "<think>\nso\n</think>\n4."


def test_problems_of_an_artifact_keep_their_system_message(
    workspace: Workspace, console: Console, server: Any, tmp_path: Path
) -> None:
    think = SynthConfig(mix={"countdown": 6}, heldout=2, out="c", countdown={"form": "think"})
    source = run(think, workspace, console)
    reply = {r["messages"][0]["content"]: r["messages"][-1]["content"] for r in rows(source, "train.jsonl")}
    server.answer = lambda body: reply[body["messages"][-1]["content"]]
    made = run(config(server.url, 4, problems="c", distill={"samples": 1, "formatted": True}), workspace, console)
    assert rows(made, "train.jsonl") == rows(source, "train.jsonl")[:4]
    assert rows(made, "heldout.jsonl") == rows(source, "heldout.jsonl")
    own = tmp_path / "own.jsonl"
    turns = [{"role": "system", "content": "Be brief."}, *FOUR["messages"]]  # type: ignore[misc]
    turns[-1] = {"role": "assistant", "content": "4"}
    own.write_text(json.dumps({**FOUR, "messages": turns}) + "\n" + json.dumps({"messages": turns}) + "\n")
    server.answer = lambda body: "The answer is 4."
    made = run(config(server.url, 9, problems=str(own), out="e"), workspace, console)
    assert server.asked[-1]["messages"][0]["content"].endswith("\n\nBe brief.")
    assert [m["role"] for m in rows(made, "train.jsonl")[0]["messages"]] == ["system", "user", "assistant"]


def test_programs_are_judged_in_the_sandbox(workspace: Workspace, console: Console, server: Any) -> None:
    solution = {i.question: i.messages[-1]["content"] for i in problems("code", 4, 0, False)}
    server.answer = lambda body: solution[body["messages"][-1]["content"]]
    made = run(config(server.url, 4, distill={"task": "code", "samples": 1}), workspace, console)
    assert len(rows(made, "train.jsonl")) == 4


def test_a_teacher_that_is_never_right_makes_nothing(workspace: Workspace, console: Console, server: Any) -> None:
    server.answer = lambda body: "<|im_end|>"
    with pytest.raises(UserError, match=r"none of 48 solutions is right \(special tokens: 48\)"):
        run(config(server.url), workspace, console)
    assert not workspace.artifacts()


def test_a_model_of_the_workspace_may_be_the_teacher(student: str, workspace: Workspace, console: Console) -> None:
    settings = SynthConfig(mix={"distill": 3}, teacher=student, distill={"max_new_tokens": 6})
    with pytest.raises(UserError, match="none of 12 solutions"):
        run(settings, workspace, console)
    assert "cost" not in dict(plan(settings, workspace))


def test_the_estimate_comes_first(workspace: Workspace) -> None:
    prices = {"price_in": 2.0, "price_out": 10.0}
    shown = dict(plan(config("http://localhost:1/v1", 100, endpoint=prices), workspace))
    assert "400 requests" in shown["solutions"] and "at most 409,600 out" in shown["solutions"]
    assert shown["cost"].startswith("at most 4.1")
    assert dict(plan(config("http://localhost:1/v1"), workspace))["cost"].startswith("unknown: set endpoint.price_in")


@pytest.mark.slow
def test_a_kill_costs_nothing_that_was_answered(workspace: Workspace, server: Any, tmp_path: Path) -> None:
    server.answer, server.delay = solve, 0.05
    command = [sys.executable, "-m", "llmctl.cli.main", "synth", "distill", "--count", "20", "-w", str(workspace.root)]
    command += ["-s", f"endpoint.url={server.url}", "-s", "endpoint.model=t", "-s", "endpoint.concurrency=3", "-q"]
    started = subprocess.Popen(command, env={**os.environ, "LLMCTL_ENDPOINT_KEY": "sk-secret"})
    while len(server.asked) < 25:
        assert started.poll() is None
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert not workspace.artifacts()
    assert subprocess.run(command, timeout=120).returncode == 0
    assert 80 <= len(server.asked) <= 83  # what was under way may be asked again, what had come may not
    made = workspace.find("distill")
    other = run(config(server.url, 20, endpoint={"model": "t"}, heldout=100), Workspace(tmp_path / "o"), Console(True))
    assert other.digest == made.digest and server.keys[0] == "Bearer sk-secret"
    for path in made.path.rglob("*"):
        assert b"sk-secret" not in path.read_bytes()
