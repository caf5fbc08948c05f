"""Two models side by side: adjusted p-values, verdicts, and a table that a pull request can show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmctl.console import Console
from llmctl.eval.compare import holm, side_by_side, verdict
from llmctl.eval.config import EvalConfig
from llmctl.eval.scores import comparisons, scores
from llmctl.eval.stage import run
from llmctl.eval.summary import markdown
from llmctl.workspace import Workspace


def row(task: str, i: int, correct: bool) -> dict[str, Any]:
    told = {"formatted": True, "refused": False, "finish": "stop", "tokens": 3, "group": "", "check": "number"}
    return {"task": task, "id": f"{task}-{i}", "correct": correct, **told}


def results() -> dict[str, Any]:
    """`new` is far better at sums, a little better at spelling, and as good at letters."""
    right = {"sums": (10, 35), "spelling": (20, 23), "letters": (15, 15)}
    answers = {
        label: [row(task, i, i < counts[n]) for task, counts in right.items() for i in range(40)]
        for n, label in enumerate(("old", "new"))
    }
    found = [s for label, rows in answers.items() for s in scores(label, rows)]
    loss = {
        "task": "bits_per_byte",
        "group": "",
        "n": 9,
        "correct": None,
        "low": None,
        "high": None,
        "unit": "bits a byte",
    }
    found += [{**loss, "model": label, "value": v} for label, v in (("old", 1.25), ("new", 1.2))]
    return {"models": [{"label": "old"}, {"label": "new"}], "scores": found, "paired": comparisons(answers)}


def test_holm_against_the_textbook() -> None:
    """Holm's own rule: the smallest times n, the next times n - 1, never falling, at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []
    assert all(a >= p for a, p in zip(holm([0.2, 0.001, 0.05]), [0.2, 0.001, 0.05], strict=True))


def test_only_what_chance_does_not_explain_is_better() -> None:
    rows = {r["task"]: r for r in side_by_side(results())}
    assert {task: verdict(r) for task, r in rows.items()} == {
        "all": "better", "sums": "better", "spelling": "", "letters": "", "bits_per_byte": "",
    }  # fmt: skip
    assert rows["sums"]["test"]["p"] < rows["sums"]["adjusted"] == pytest.approx(3 * rows["sums"]["test"]["p"])
    assert rows["all"]["adjusted"] == rows["all"]["test"]["p"]  # the sum of the tasks is no task more


def test_the_table_for_a_pull_request() -> None:
    lines = markdown(results()).splitlines()
    assert lines[0] == "| task | old | new | new against old | p |  |"
    sums = next(line for line in lines if line.startswith("| sums"))
    assert "+62.5 (" in sums and sums.endswith("| better |")
    loss = next(line for line in lines if line.startswith("| bits per byte"))
    assert loss == "| bits per byte | 1.2500 | 1.2000 | -0.0500 |  |  |"


def test_three_models_are_not_two() -> None:
    found = results()
    found["models"].append({"label": "third"})
    assert side_by_side(found) == [] and markdown(found).startswith("| task | old | new | third |")


def test_a_report_of_two_shows_them_side_by_side(shelf, workspace: Workspace, console: Console) -> None:
    shelf.conversations("talks", ("sums",))
    shelf.model("old", "sft", ["talks"])
    shelf.model("new", "sft", ["talks"], seed=1)
    config = EvalConfig(models=["old", "new"], items=6, max_new_tokens=6, python=False, precision="fp32")
    made = run(config, workspace, console)
    page = made.file("report.html").read_text()
    assert "p, adjusted" in page and '<div class="sides">' in page and "<script" not in page
    assert made.file("summary.md").read_text().startswith("| task | old | new | new against old |")
    assert json.loads(made.file("results.json").read_text())["paired"]
