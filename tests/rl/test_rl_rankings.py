"""best-of-n with `keep: ranking`: comparisons of the policy's own replies."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rl_tiny import save_tiny, tiny_config

from llmctl.console import Console
from llmctl.formats.comparisons import read_comparisons
from llmctl.generate.engine import Sample
from llmctl.rl.best_of_n import made
from llmctl.rl.config import RewardSettings
from llmctl.rl.rewards import Rewards, Rollout
from llmctl.rl.stage import run
from llmctl.rm.config import RmConfig
from llmctl.rm.stage import run as train_judge
from llmctl.verify import Item
from llmctl.workspace import Artifact, Workspace

REWARD = """
import os, signal
CALLS = 0

def letter_e(row):
    global CALLS
    CALLS += 1
    if CALLS == int(os.environ.get("DIES_AT", "0")):
        os.kill(os.getppid(), signal.SIGKILL)
    return row["reply"].count("e")

def flat(row):
    return 1.0
"""
OWN = {"rewards": {"accuracy": 0, "format": 0}, "guard": {"every": 0}}
RANKING = {"name": "best-of-n", "keep": "ranking"}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_ranks.py").write_text(REWARD)
    return save_tiny(tmp_path / "tiny")


def config(model: Path, **more: Any) -> Any:
    given = {"function": "mine_ranks:letter_e", "method": RANKING, "eval_items": 5, **OWN}
    return tiny_config(model, **(given | {"train": {"steps": 3}} | more))


def group(*replies: tuple[str, float], messages: list[dict[str, str]] | None = None) -> list[Rollout]:
    item = Item("names", "Who is Ann?", "", "", messages or [{"role": "user", "content": "Who is Ann?"}], False)
    return [
        Rollout(item, [1], Sample(ids=[i], logprobs=[0.0], forced=[False], finish="stop", text=text), total=total)
        for i, (text, total) in enumerate(replies)
    ]


def rows_in(found: Artifact, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in found.file(f"{split}.jsonl").read_text().splitlines()]


def test_replies_are_ordered_by_reward_and_equal_rewards_tie() -> None:
    row = made(group(("a", 0.5), ("b", 2.0), ("c", 0.5), ("d", -1.0)), "ranking")
    assert row is not None
    assert (row["responses"], row["ranking"]) == (["b", "a", "c", "d"], [0, 1, 1, 2])
    assert row["prompt"] == [{"role": "user", "content": "Who is Ann?"}]


def test_the_prompt_is_what_stands_before_a_worked_solution() -> None:
    solved = [{"role": "user", "content": "Who is Ann?"}, {"role": "assistant", "content": "A baker."}]
    row = made(group(("a", 1.0), ("b", 0.0), messages=solved), "ranking")
    assert row is not None and row["prompt"] == solved[:1]


def test_identical_replies_appear_once_and_those_that_cannot_be_compared_not_at_all() -> None:
    call = "<|python_start|>1+1<|python_end|>"
    row = made(group(("a", 1.0), ("a", 1.0), ("", 3.0), ("b", 0.0), ("c", math.nan), (call, 2.0)), "ranking")
    assert row is not None
    assert (row["responses"], row["ranking"]) == (["a", "b"], [0, 1])


@pytest.mark.parametrize(
    "replies",
    [[("a", 1.0), ("b", 1.0)], [("a", 1.0), ("a", 0.0)], [("a", 1.0), ("b", math.nan)], [("a", 1.0), (" ", 0.0)]],
    ids=["one reward", "one reply", "one with a reward", "one with words"],
)
def test_a_group_without_two_rewards_is_no_ranking(replies: list[tuple[str, float]]) -> None:
    assert made(group(*replies), "ranking") is None


def test_it_makes_comparisons_and_says_how_much_there_is_to_compare(
    model: Path, workspace: Workspace, console: Console
) -> None:
    settings = config(model)
    found = run(settings, workspace, console)
    assert (found.kind, settings.made_kind) == ("comparisons", "comparisons")
    train, heldout = rows_in(found, "train"), rows_in(found, "heldout")
    for row in train + heldout:
        counts = [reply.count("e") for reply in row["responses"]]
        assert counts == sorted(counts, reverse=True) and len(set(row["responses"])) == len(counts)
        assert row["ranking"] == [sorted(set(counts), reverse=True).index(n) for n in counts]
    assert not {json.dumps(r["prompt"]) for r in train} & {json.dumps(r["prompt"]) for r in heldout}
    shown, read = found.figures, read_comparisons(found.path)
    assert (len(read.rows), read.pairs, read.skipped) == (shown["rankings"], shown["pairs"], [])
    assert read_comparisons(found.path, "heldout").pairs == shown["heldout_pairs"]
    assert shown["rankings"] + shown["without_spread"] == 9 and shown["spread"] == len(train) / 9
    assert shown["heldout_rankings"] + shown["heldout_without_spread"] == 5


def test_rm_and_dpo_learn_from_what_was_made(model: Path, workspace: Workspace, console: Console) -> None:
    made_of = run(config(model, out="ranked"), workspace, console)
    judge = RmConfig.model_validate({"model": str(model), "comparisons": ["ranked"], "out": "judge",
                                     "train": {"steps": 2, "precision": "fp32"}})  # fmt: skip
    assert train_judge(judge, workspace, console).manifest["inputs"][-1]["name"] == "ranked"
    learned = run(tiny_config(model, method="dpo", data=["ranked"], out="dpo", eval_items=50), workspace, console)
    assert (learned.figures["pairs"], learned.figures["heldout_pairs"]) == (
        made_of.figures["pairs"], made_of.figures["heldout_pairs"],
    )  # fmt: skip
    assert learned.figures["left_out"] == {"tied": 0, "too_long": 0, "unreadable": 0}


def test_two_rankings_of_one_prompt_are_both_kept(
    model: Path, workspace: Workspace, console: Console, tmp_path: Path
) -> None:
    asked = [{"messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": "it"}]}
             for i in range(3)]  # fmt: skip
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(r) + "\n" for r in asked))
    found = run(config(model, data=["asked.jsonl"], train={"steps": 4}), workspace, console)
    rows = rows_in(found, "train")
    prompts = {json.dumps(r["prompt"]) for r in rows}
    assert len(rows) > len(prompts)  # twelve groups for at most three prompts
    assert len({json.dumps(r) for r in rows}) == len(rows)


def test_nothing_to_compare_is_said_and_no_empty_held_out_part_is_left(
    model: Path, workspace: Workspace, capsys: pytest.CaptureFixture
) -> None:
    found = run(config(model, function="mine_ranks:flat"), workspace, Console(quiet=True))
    assert found.figures["rankings"] == 0 and found.figures["without_spread"] == 9
    assert rows_in(found, "train") == [] and "heldout.jsonl" not in set(found.files())
    assert "no problem has two replies of different reward" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_goes_on_and_makes_the_same_files(model: Path, workspace: Workspace, console: Console) -> None:
    """SIGKILL while the replies of the second part are scored; the first is not answered again."""
    sets = ["function=mine_ranks:letter_e", "method={name: best-of-n, keep: ranking}", "eval_items=5", "train.steps=3",
            "rewards={accuracy: 0, format: 0}", "sums.digits=[1, 1]", "guard.every=0",
            "rollouts={prompts: 3, group: 4, max_new_tokens: 8}"]  # fmt: skip

    def made_by(out: str, **environment: str) -> int:
        command = [sys.executable, "-m", "llmctl", "rl", str(model), "-o", out, "-w", str(workspace.root)]
        command += [part for setting in sets for part in ("-s", setting)]
        return subprocess.run(command, capture_output=True, timeout=300, env={**os.environ, **environment}).returncode

    assert made_by("killed", DIES_AT="17") == -signal.SIGKILL
    parts = list(workspace.root.rglob("part-*.json"))
    before = {p.name: p.stat().st_mtime_ns for p in parts}
    assert set(before) == {"part-000000.json"}
    assert made_by("killed", DIES_AT=str(9 * 4 + 5 * 4 - 12 + 1)) == 0  # twelve replies fewer than in all
    assert made_by("whole") == 0
    whole, killed = workspace.find("whole", ["comparisons"]), workspace.find("killed", ["comparisons"])
    for split in ("train", "heldout"):
        assert killed.file(f"{split}.jsonl").read_text() == whole.file(f"{split}.jsonl").read_text() != ""
    assert killed.figures == whole.figures


def test_the_rule_orders_where_nothing_else_is_rewarded() -> None:
    """What is right and in form is before what is only in form."""
    item = Item("sums", "What is 1 + 1?", "2", "number", [{"role": "user", "content": "What is 1 + 1?"}], False)
    replies = [Rollout(item, [1], Sample([1], [False], [0.0], "stop", text))
               for text in ("The answer is 3.", "The answer is 2.", "no")]  # fmt: skip
    Rewards(RewardSettings()).score(replies)
    row = made(replies, "ranking")
    assert row is not None and row["responses"] == ["The answer is 2.", "The answer is 3.", "no"]


def test_it_is_for_best_of_n_alone(model: Path) -> None:
    with pytest.raises(ValueError, match="best-of-n alone does, not expert-iteration"):
        tiny_config(model, method={"name": "expert-iteration", "keep": "ranking"})
