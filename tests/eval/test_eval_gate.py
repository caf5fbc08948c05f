"""Bounds: which side is which, what they name, and the exit code that CI sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.gate import Bound, check, missed, parse, scores_of
from llmctl.eval.stage import run
from llmctl.workspace import Workspace

RESULTS: dict[str, Any] = {
    "models": [{"label": "old"}, {"label": "new"}],
    "scores": [
        {"model": "old", "task": "sums", "group": "", "value": 0.9, "unit": "share"},
        {"model": "new", "task": "sums", "group": "", "value": 0.5, "unit": "share"},
        {"model": "new", "task": "names", "group": "made-up", "value": 0.7, "unit": "share"},
        {"model": "new", "task": "arc", "group": "", "metric": "acc", "value": 0.3, "unit": "share"},
        {"model": "new", "task": "arc", "group": "", "metric": "acc_norm", "value": 0.4, "unit": "share"},
        {"model": "old", "task": "bits_per_byte", "group": "", "value": 1.25, "unit": "bits a byte"},
        {"model": "new", "task": "pairs", "group": "", "value": None, "unit": "share"},
    ],
}


@pytest.mark.parametrize(
    ("text", "above", "line"),
    [
        ("sums=0.5", False, None),  # at the bound is not below it
        ("sums=50%", False, None),
        ("sums=50.1%", False, "sums is 50 %, below 50.1 %"),
        ("old/sums=0.9", False, None),
        ("old/sums=0.95", False, "old/sums is 90 %, below 95 %"),
        ("names made-up=0.8", False, "names made-up is 70 %, below 80 %"),
        ("arc=0.35", False, "arc is 30 %, below 35 %"),
        ("arc:acc_norm=0.35", False, None),
        ("bits_per_byte=1.2", True, "bits_per_byte is 1.25, above 1.2"),  # of the last model that has it
        ("bits_per_byte=1.25", True, None),
        ("sums=0.4", True, "sums is 50 %, above 40 %"),
    ],
)
def test_bounds(text: str, above: bool, line: str | None) -> None:
    assert missed([parse(text, above)], scores_of(RESULTS)) == ([line] if line else [])


@pytest.mark.parametrize("text", ["sums", "sums=", "=0.5", "sums=high", "sums=1.2.3", "sums=nan", "sums=0.5.", "a=b=1"])
def test_what_is_no_bound_is_said_before_anything_is_measured(text: str) -> None:
    with pytest.raises(ValueError, match="is no bound"):
        parse(text)
    with pytest.raises(ValueError, match="is no bound"):
        EvalConfig(models=["m"], fail_below=[text])


def test_bounds_that_cannot_be_meant() -> None:
    scores = scores_of(RESULTS)
    with pytest.raises(UserError, match="write sums=50%"):
        missed([Bound("sums", 50.0, False)], scores)
    with pytest.raises(UserError, match=r"no score 'sumz' .did you mean 'sums'"):
        missed([Bound("sumz", 0.5, False)], scores)
    with pytest.raises(UserError, match="no score 'pairs'"):
        missed([Bound("pairs", 0.5, False)], scores)


def test_ratings_and_held_back_runs_have_bounds_too() -> None:
    arena = {"models": [{"label": "m"}], "ratings": {"rows": [{"model": "m", "rating": 990.0}]}}
    assert missed([parse("rating=1000")], scores_of(arena)) == ["rating is 990, below 1000"]
    law = {"held_back": {"error": -0.03}}
    assert missed([parse("held_back_error=2%", above=True)], scores_of(law)) == ["held_back_error is 3 %, above 2 %"]


def llmctl(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmctl.cli.main", *words]
    return subprocess.run(command, text=True, capture_output=True, timeout=120)


@pytest.mark.slow
def test_the_command_ends_with_3_also_when_nothing_is_left_to_do(shelf, workspace: Workspace) -> None:
    shelf.model("chat", "sft")
    words = ["eval", "chat", "--tasks", "sums", "-w", str(workspace.root), "-s", "items=2", "-s", "max_new_tokens=4"]
    for _ in range(2):
        done = llmctl(*words, "--fail-below", "sums=10%", "--json")
        assert done.returncode == 3, done.stderr
        assert "missed: sums is 0 %, below 10 %" in done.stderr.splitlines()
        assert json.loads(done.stdout)["kind"] == "report"
    assert llmctl(*words, "--fail-below", "sums=0").returncode == 0
    assert llmctl(*words, "--fail-below", "sumz=0").returncode == 2


@pytest.mark.slow
def test_a_recipe_stops_at_a_missed_bound(shelf, workspace: Workspace, tmp_path: Path) -> None:
    shelf.model("chat", "sft")
    steps = [
        {
            "stage": "eval",
            "models": ["chat"],
            "tasks": ["sums"],
            "items": 2,
            "max_new_tokens": 4,
            "fail_below": ["sums=1"],
        },
        {"stage": "chat", "model": "chat", "prompts": ["2 + 2?"], "out": "answer"},
    ]
    (tmp_path / "r.yaml").write_text(json.dumps({"steps": steps}))
    done = llmctl("run", str(tmp_path / "r.yaml"), "-w", str(workspace.root), "--json")
    assert done.returncode == 3 and "missed: sums is 0 %, below 100 %" in done.stderr
    assert [s["missed"] for s in json.loads(done.stdout)] == [["sums is 0 %, below 100 %"]]
    assert [a.name for a in workspace.artifacts("conversations")] == []  # what comes behind the bound was not run


def test_a_bound_does_not_make_a_report_stale(shelf, workspace: Workspace, console: Console) -> None:
    shelf.model("chat", "sft")
    config = EvalConfig(models=["chat"], tasks=["sums"], items=2, max_new_tokens=4, python=False)
    made = run(config, workspace, console)
    bounded = config.model_copy(update={"fail_below": ["sums=90%"]})
    assert workspace.current(bounded) is not None and check(bounded, made) == ["sums is 0 %, below 90 %"]
