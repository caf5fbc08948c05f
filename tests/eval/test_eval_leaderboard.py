"""The leaderboard, and scores that follow a model into `show` and `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.eval.config import EvalConfig
from llmctl.eval.leaderboard import evals_of, leaderboard, markdown
from llmctl.eval.stage import run
from llmctl.pipeline.export import export_model
from llmctl.pipeline.look import described
from llmctl.workspace import Workspace

SMALL: dict[str, Any] = {"items": 4, "max_new_tokens": 4, "python": False, "precision": "fp32"}


def measured(shelf, workspace: Workspace, console: Console) -> None:
    shelf.conversations("talks", ("sums",))
    shelf.model("one", "sft", ["talks"])
    shelf.model("two", "sft", ["talks"], seed=1)
    run(EvalConfig(models=["one", "two"], **SMALL), workspace, console)


def arena(workspace: Workspace, out: str, games: list[dict[str, Any]], names: list[str]) -> None:
    """An arena's report as the stage leaves it, with games that were made up."""
    digests = [{"label": n, "digest": workspace.find(n, ["model"]).digest} for n in names]
    results = {"mode": "arena", "models": digests, "judge": {"name": "judge"}, "scores": []}
    with workspace.build(EvalConfig(models=names, out=out, mode="arena")) as build:
        (build.path / "results.json").write_text(json.dumps(results))
        (build.path / "games.jsonl").write_text("".join(json.dumps(g) + "\n" for g in games))


def game(prompt: int, first: str, second: str, score: float | None) -> dict[str, Any]:
    return {"prompt": str(prompt), "first": first, "second": second, "score": score, "longer": 0, "why": ""}


def test_ratings_are_made_of_all_arenas_of_a_judge(shelf, workspace: Workspace, console: Console) -> None:
    """`two` beats `one` in one arena, `three` beats `two` in another: `three` is above `one`, whom it never met."""
    measured(shelf, workspace, console)
    shelf.model("three", "sft", ["talks"], seed=2)
    arena(workspace, "first", [game(i, "one", "two", float(i % 4 == 0)) for i in range(12)], ["one", "two"])
    arena(workspace, "second", [game(i, "two", "three", float(i % 4 == 0)) for i in range(12)], ["two", "three"])
    board = leaderboard(workspace)
    assert [m["name"] for m in board["models"]] == ["three", "two", "one"] and board["judges"] == ["judge"]
    rating = {m["name"]: m["ratings"]["judge"]["rating"] for m in board["models"]}
    assert abs(rating["three"] - rating["two"] - (rating["two"] - rating["one"])) < 1e-6
    lines = markdown(board).splitlines()
    assert lines[0].startswith("| model | rating by judge | all items |") and lines[2].startswith("| three |")


def test_undecided_games_and_damaged_reports_say_nothing(shelf, workspace: Workspace, console: Console) -> None:
    measured(shelf, workspace, console)
    arena(workspace, "undecided", [game(0, "one", "two", None)], ["one", "two"])
    workspace.find("eval", ["report"]).path.joinpath("results.json").write_text("{")
    board = leaderboard(workspace)
    assert board == {"models": [], "judges": []} and "no report" in markdown(board)


def test_a_score_belongs_to_what_was_measured_not_to_its_name(shelf, workspace: Workspace, console: Console) -> None:
    measured(shelf, workspace, console)
    digest = workspace.find("one", ["model"]).digest
    assert {s["task"] for s in evals_of(workspace, digest)} >= {"all", "sums"}
    shelf.model("one", "sft", ["talks"], seed=7)
    assert evals_of(workspace, workspace.find("one", ["model"]).digest) == []


def test_scores_go_with_the_model(shelf, workspace: Workspace, console: Console, tmp_path: Path) -> None:
    measured(shelf, workspace, console)
    model = workspace.find("one", ["model"])
    assert {s["task"] for s in described(model, workspace)["evals"]} >= {"all", "sums"}
    export_model(workspace, "one", tmp_path / "out", "hf")
    card = (tmp_path / "out/README.md").read_text()
    assert "| sums | 0.0 %" in card and card.index("## Evaluation") < card.index("| sums |") < card.index("## Limits")
    assert "conversations `talks`" in card
    assert model.damage(deep=True) == []  # the artifact itself is as it was
