"""Model cards: what every one of them carries, and scores put in later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, ClassVar

from llmctl.recipe import InputOf, StageSettings
from llmctl.workspace import Workspace
from llmctl.workspace.card import finish_card, with_scores


class Made(StageSettings):
    stage: ClassVar[str] = "tokenize"
    makes: ClassVar[str] = "tokens"
    of: Annotated[str, InputOf(("tokens", "corpus"), files=True)] = ""


class Model(Made):
    stage: ClassVar[str] = "pretrain"
    makes: ClassVar[str] = "model"


def make(workspace: Workspace, seconds: float) -> str:
    with workspace.build(Made(out="text")) as build:
        (build.path / "x").write_text("x")
        build.figures["out"] = "12 tokens"
    with workspace.build(Model(out="base", of="text")) as build:
        (build.path / "README.md").write_text("---\ntags:\n- llmctl\n---\n\n# base\n\nA base model.\n")
        build.figures |= {"parameters": 1234567, "loss_last": 2.345678, "train_seconds": seconds}
    return build.done().digest


def test_a_model_carries_its_training_data_and_limits(workspace: Workspace) -> None:
    make(workspace, 1.0)
    card = workspace.find("base", ["model"]).file("README.md").read_text()
    assert card.startswith("---\ntags:") and "A base model." in card
    for part in ("| parameters | 1,234,567 |", "| training loss, last step | 2.346 |", "| seed | 0 |"):
        assert part in card
    assert "- tokens `text`, by `llmctl tokenize`: 12 tokens" in card
    assert [line for line in card.splitlines() if line.startswith("## ")] == [
        "## Training", "## Data", "## Evaluation", "## Limits",
    ]  # fmt: skip
    assert "not taught to answer" in card


def test_how_long_it_took_does_not_change_the_model(tmp_path: Path) -> None:
    assert make(Workspace(tmp_path / "a"), 1.0) == make(Workspace(tmp_path / "b"), 2.0)


def test_scores_are_put_in_and_replaced() -> None:
    card = "# m\n\n## Data\n\nd\n\n## Evaluation\n\nnone\n\n## Limits\n\n- few\n"
    once = with_scores(card, "| sums | 1 |")
    assert once == "# m\n\n## Data\n\nd\n\n## Evaluation\n\n| sums | 1 |\n\n## Limits\n\n- few\n"
    assert with_scores(once, "none") == card
    assert with_scores("# m\n", "s") == "# m\n\n## Evaluation\n\ns\n"


def test_a_finished_card_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# m\n")
    finish_card(tmp_path, "rm", 0, [], {})
    once = (tmp_path / "README.md").read_text()
    finish_card(tmp_path, "rm", 0, [], {})
    assert (tmp_path / "README.md").read_text() == once and "not a measure of truth" in once


def test_a_model_without_a_card_gets_none(workspace: Workspace) -> None:
    with workspace.build(Model(out="bare")) as build:
        (build.path / "config.json").write_text(json.dumps({}))
    assert list(build.done().files()) == ["config.json"]


def test_a_figure_before_and_after_says_its_unit_on_both(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# judge\n")
    right = {"label": "pairs right", "before": 49.2, "after": 86.5, "unit": "%"}
    more = [{"label": "in form", "before": None, "after": 99.5, "unit": "%"}]
    finish_card(tmp_path, "rm", 3, [], {"steps": 24, "pairs": 1193, "headline": right, "more": more})
    card = (tmp_path / "README.md").read_text()
    for row in (
        "updates | 24",
        "pairs trained on | 1,193",
        "pairs right | 49.2 % before, 86.5 % after",
        "in form | 99.5 %",
    ):
        assert f"| {row} |\n" in card
