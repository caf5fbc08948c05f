"""The synth stage: what it writes is right, disjoint, reproducible, and read back as it was written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.formats.comparisons import read_comparisons
from llmctl.formats.conversations import read_conversations
from llmctl.recipe.check import problems as mistakes
from llmctl.recipe.source import Source
from llmctl.synth.config import SynthConfig
from llmctl.synth.preferences import grades
from llmctl.synth.stage import plan, run
from llmctl.tools.search import SearchIndex, read_library
from llmctl.tools.toolbox import Toolbox
from llmctl.verify import check, problems
from llmctl.workspace import Artifact, Workspace

ALL = {"sums": 40, "identity": 30, "names": 30, "tools": 41}


def rows(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.file(name).read_text().splitlines()]


@pytest.fixture
def made(workspace: Workspace, console: Console) -> Artifact:
    return run(SynthConfig(mix=ALL, heldout=10, out="all"), workspace, console)


def test_a_mix_is_whole_shuffled_and_disjoint(made: Artifact) -> None:
    train, apart = rows(made, "train.jsonl"), rows(made, "heldout.jsonl")
    assert Counter(r["kind"] for r in train) == {"sums": 40, "identity": 30, "names": 30, "lookup": 21, "python": 20}
    assert Counter(r["kind"] for r in apart) == dict.fromkeys(("sums", "identity", "names", "lookup", "python"), 10)
    assert len({r["kind"] for r in train[:20]}) > 2
    assert not {r["messages"][0]["content"] for r in train} & {r["messages"][0]["content"] for r in apart}
    assert made.kind == "conversations" and made.figures["headline"]["after"] == 141 and made.figures["heldout"] == 50


def test_rows_come_back_from_the_reader_as_they_were_written(made: Artifact) -> None:
    for split in ("train", "heldout"):
        found = read_conversations(made.path, split=split)
        assert found.rows == rows(made, f"{split}.jsonl") and not found.skipped


def test_the_tools_give_what_the_conversations_say(made: Artifact) -> None:
    tools = Toolbox(search=SearchIndex.build(read_library(made)), python=True)
    pythons = 0
    for row in rows(made, "train.jsonl") + rows(made, "heldout.jsonl"):
        content = row["messages"][-1]["content"]
        if row["kind"] == "lookup" or (row["kind"] == "python" and pythons < 5):
            call, output, said = content
            assert tools(call["type"], call["text"]) == output["text"]
            assert check(row, said["text"]).correct
            pythons += row["kind"] == "python"
    assert pythons == 5


def test_the_same_settings_give_the_same_bytes(made: Artifact, tmp_path: Path, console: Console) -> None:
    other = Workspace(tmp_path / "other")
    assert run(SynthConfig(mix=ALL, heldout=10, out="b"), other, console).digest == made.digest
    assert run(SynthConfig(mix=ALL, heldout=10, out="c", seed=1), other, console).digest != made.digest


def test_no_library_without_look_ups(workspace: Workspace, console: Console) -> None:
    made = run(SynthConfig(mix={"sums": 5}, heldout=0), workspace, console)
    assert list(made.files()) == ["heldout.jsonl", "train.jsonl"] and rows(made, "heldout.jsonl") == []


def test_preferences_are_comparisons(workspace: Workspace, console: Console) -> None:
    config = SynthConfig(mix={"preferences": 60}, heldout=20, preferences={"kinds": ["sums", "names", "identity"]})
    made = run(config, workspace, console)
    assert made.kind == config.made_kind == "comparisons"
    found = read_comparisons(made.path)
    assert found.rows == rows(made, "train.jsonl") and not found.skipped and found.pairs == made.figures["pairs"]
    assert {len(r["ranking"]) for r in found.rows} == {2, 3, 4}
    train, apart = ({r["prompt"][0]["content"] for r in rows(made, f)} for f in ("train.jsonl", "heldout.jsonl"))
    assert train and apart and not train & apart


@pytest.mark.parametrize("kind", ["sums", "names", "identity"])
def test_the_best_grade_is_right_and_the_wrong_one_wrong(kind: str) -> None:
    from random import Random

    for item in problems(kind, 300, 5, False):
        best, weak, wrong, nonsense = grades(item, Random(item.id))
        assert check(item, best).correct and check(item, best).formatted
        assert not check(item, wrong).correct, (item.question, wrong)
        assert len({best, weak, wrong, nonsense}) == 4
        if kind == "sums":
            verdict = check(item, weak)
            assert verdict.correct is False or not verdict.formatted or "\n" not in weak


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({}, "'mix' is missing"),
        ({"mix": {}}, "say what to make"),
        ({"mix": {"sumz": 3}}, "did you mean 'sums'"),
        ({"mix": {"sums": 0}}, "no number of problems"),
        ({"mix": {"sums": 1, "preferences": 1}}, "two synth steps"),
        ({"mix": {"sums": 1, "distill": 1}, "teacher": "m"}, "two synth steps"),
        ({"mix": {"distill": 1}}, "distill needs a writer"),
        ({"mix": {"chat": 1}}, "chat needs a writer"),
        ({"mix": {"knowledge": 1}, "model": "m"}, "texts to ask about"),
        ({"mix": {"knowledge": 1}, "model": "m", "corpus": "c", "knowledge": {"judge": "model"}}, "the judge needs"),
        ({"mix": {"distill": 1}, "endpoint": {"url": "http://x/v1"}}, "both url and model"),
        ({"mix": {"distill": 1}, "teacher": "m", "distill": {"task": "summs"}}, "no task"),
        ({"mix": {"sums": 1}, "sums": {"digits": [5, 2]}}, "between 1 and 12"),
        ({"mix": {"sums": 1}, "sums": {"operators": ["/"]}}, "operators"),
        ({"mix": {"sums": 1}, "preferences": {"responses": [2, 9]}}, "between 2 and 4"),
        ({"mix": {"sums": 1}, "identity": {"nam": "x"}}, "did you mean"),
    ],
)
def test_mistakes_in_settings_are_named(data: dict[str, Any], says: str) -> None:
    wrong = mistakes(SynthConfig, data, Source("recipe.yaml", data))
    assert len(wrong) == 1 and says in wrong[0].message()


def test_the_plan_shows_an_example_of_each_kind(workspace: Workspace) -> None:
    shown = "\n".join(f"{a} {b}" for a, b in plan(SynthConfig(mix=ALL), workspace))
    assert "The answer is" in shown and "[search: " in shown and "[python: " in shown
    assert "rank 0" in "\n".join(a for a, _ in plan(SynthConfig(mix={"preferences": 3}), workspace))
    assert not workspace.artifacts()


def test_an_impossible_split_is_an_error_of_the_person(workspace: Workspace, console: Console) -> None:
    config = SynthConfig(mix={"sums": 10}, sums={"digits": [1, 1], "operators": ["*"]})
    try:
        run(config, workspace, console)
    except UserError as e:
        assert "widen" in e.message()
    else:
        assert workspace.artifacts()


def test_the_quickstarts_lessons_are_the_same_bytes(workspace: Workspace, console: Console) -> None:
    """Whoever changes a kind of problem changes what every measurement so far was made on."""
    mix = {"sums": 80, "identity": 30, "names": 100, "lookup": 100, "python": 100}
    assert run(SynthConfig(mix=mix, heldout=20, out="l"), workspace, console).digest[:16] == "09ca2f9f45a9da24"


@pytest.mark.parametrize("kind", ["countdown", "letters", "spelling", "decimals", "math", "code"])
def test_every_task_of_rl_can_be_taught(kind: str, workspace: Workspace, console: Console) -> None:
    made = run(SynthConfig(mix={kind: 4}, heldout=1, out=kind), workspace, console)
    assert [r["kind"] for r in rows(made, "train.jsonl")] == [kind] * 4 and len(rows(made, "heldout.jsonl")) == 1


def test_who_it_is_may_stand_in_the_system_message(workspace: Workspace, console: Console) -> None:
    config = SynthConfig(mix={"identity": 200, "sums": 5}, heldout=20, from_system=0.5, identity={"maker": "the Moon"})
    made = run(config, workspace, console)
    told = [r for r in rows(made, "train.jsonl") if r["messages"][0]["role"] == "system"]
    assert 70 < len(told) < 130 and {r["kind"] for r in told} == {"identity"}
    for row in told:
        assert check(row, row["messages"][-1]["content"]).correct
    names = [r for r in told if r["group"] == "name"]
    assert all(r["answer"] in r["messages"][0]["content"] for r in names) and len({r["answer"] for r in names}) > 10
    assert made.figures["system"] == "You are Sprout, a small language model made by the Moon. Your version is 1.0."
    apart = [r for r in rows(made, "heldout.jsonl") if r["messages"][0]["role"] == "system"]
    asked = {r["messages"][1]["content"] for r in told}
    assert apart and not asked & {r["messages"][1]["content"] for r in apart}
    assert read_conversations(made.path).rows == rows(made, "train.jsonl")
    same = run(SynthConfig(**{**config.model_dump(), "out": "again"}), workspace, console)
    assert same.digest == made.digest


def test_transcripts_of_tools_say_where_they_come_from(workspace: Workspace, console: Console) -> None:
    made = run(SynthConfig(mix={"tools": 20, "sums": 10}, heldout=2), workspace, console)
    assert made.figures["kinds"] == {"lookup": 10, "python": 10, "sums": 10} and made.figures["library"] > 10
    assert made.manifest["seed"] == 0 and made.manifest["settings"]["mix"] == {"tools": 20, "sums": 10}
    assert {
        p["type"] for r in rows(made, "train.jsonl") for p in r["messages"][-1]["content"] if isinstance(p, dict)
    } == {
        "search",
        "python",
        "output",
        "text",
    }
