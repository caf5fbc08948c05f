"""The recipes of reinforcement learning, whole, in a small variant: R1-Zero, R1, GSM8K and RLHF."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small import GSM8K, R1, R1_ZERO, RLHF, flags

from llmctl.eval.task_file import shipped
from llmctl.formats.comparisons import read_comparisons
from llmctl.formats.conversations import read_conversations
from llmctl.pipeline.plan import load, locate
from llmctl.verify import check
from llmctl.workspace import Workspace

pytestmark = pytest.mark.slow


def run(recipe: str, root: Path, sets: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "llmctl.cli.main", "run", recipe, "-w", str(root), "--json", *flags(sets)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return {s["name"]: s for s in json.loads(done.stdout)}


def test_r1_zero(tmp_path: Path) -> None:
    steps = run("r1-zero", tmp_path / "w", R1_ZERO)
    assert steps["zero"]["headline"]["label"] == "held-out sums right"
    zero = Workspace(tmp_path / "w").find("zero", ["model"])
    rows = [r for r in zero.metrics() if "group_std" in r]
    assert rows and all(0 <= r["formatted"] <= 1 for r in rows)
    assert {"formatted_before", "formatted_after"} <= set(zero.figures)


def test_r1_hands_on_what_is_right_and_nothing_else(tmp_path: Path) -> None:
    steps = run("r1", tmp_path / "w", R1)
    workspace = Workspace(tmp_path / "w")
    for name in ("reasoned", "taught"):
        kept = read_conversations(workspace.find(name, ["conversations"]).path).rows
        assert kept
        for row in kept:
            verdict = check(row, row["messages"][-1]["content"])
            assert verdict.correct and (verdict.formatted or name == "reasoned")
    assert {"reasoned", "general"} <= {i["name"] for i in workspace.find("mixed", ["model"]).manifest["inputs"]}
    logged = {key for row in workspace.find("r1", ["model"]).metrics() for key in row}
    assert {"accuracy", "formatted", "reward_learned", "guard_gold"} <= logged
    assert steps["reasoned"]["headline"]["label"].startswith("held-out sums: one reply, best of")
    found = json.loads((tmp_path / "w/report/distillation/results.json").read_text())
    assert ("small-rl", "distilled") in {(p["first"], p["second"]) for p in found["paired"]}


def test_r1_begins_as_the_quickstart_does() -> None:
    """So that its first steps are up to date in a workspace that has run the quickstart."""
    first, other = (load(locate(name)).steps[:4] for name in ("quickstart", "r1"))
    assert [s.data for s in first] == [s.data for s in other]


def test_gsm8k_from_a_folder(quickstart: Path, tmp_path: Path) -> None:
    model = tmp_path / "published"
    shutil.copytree(quickstart / "model/chat", model)
    asked = "Ann has {} pears and buys 2 more. How many has she?"
    rows = [{"question": asked.format(i), "answer": f"{i}+2={i + 2}\n#### {i + 2}"} for i in range(40)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    task = shipped()["gsm8k"].read_text().replace("openai/gsm8k\ndataset_name: main", "json\ndata_files: {data}")
    names = f"{{train: {tmp_path}/train.jsonl, test: {tmp_path}/train.jsonl}}"
    (tmp_path / "mine.yaml").write_text(task.replace("{data}", names))
    sets = [*GSM8K, f"gsm8k-solver.model={model}", f"gsm8k-test.models=[{model}, gsm8k-solver]",
            f"gsm8k-test.tasks=[{tmp_path}/mine.yaml]", f"gsm8k-solver.gsm8k.file={tmp_path}/train.jsonl"]  # fmt: skip
    steps = run("gsm8k", tmp_path / "w", sets)
    assert steps["gsm8k-solver"]["headline"]["label"] == "held-out gsm8k right"
    found = json.loads((tmp_path / "w/report/gsm8k-test/results.json").read_text())
    assert {"gsm8k", "gsm8k/flexible-extract"} <= {s["task"] for s in found["scores"]}


def test_rlhf(tmp_path: Path) -> None:
    steps = run("rlhf", tmp_path / "w", RLHF)
    workspace = Workspace(tmp_path / "w")
    ranked = workspace.find("rankings", ["comparisons"])
    rows = read_comparisons(ranked.path).rows
    assert rows and len(rows) == ranked.figures["rankings"]
    # The judge and dpo learn from what the policy itself has said, and from nothing else.
    for name in ("judge", "dpo"):
        inputs = {i["name"] for i in workspace.find(name, ["model"]).manifest["inputs"]}
        assert inputs == {"chat", "rankings"}
    for name in ("ppo", "grpo"):
        assert steps[name]["headline"]["label"] == "held-out lessons right"
        made = workspace.find(name, ["model"])
        rows = [r for r in made.metrics() if "reward_learned" in r]
        # The judge alone pays; what is right by rule is gold, and earns nothing.
        assert rows and all(r["reward"] == pytest.approx(r["reward_learned"], abs=1e-5) for r in rows)
        curve = made.figures["guard"]
        # Sampler and trainer round differently in bfloat16: hundredths of a nat over a few replies, before the root.
        assert curve[0]["sqrt_kl"] < 0.5 and all(0 <= row["gold"] <= 1 for row in curve)
    assert "explained" in next(r for r in workspace.find("ppo", ["model"]).metrics() if "value_mean" in r)
    assert steps["dpo"]["headline"]["label"] == "held-out pairs ranked right"
    found = json.loads((tmp_path / "w/report/eval/results.json").read_text())
    assert {"chat", "ppo", "grpo", "dpo"} <= {s["model"] for s in found["scores"]}
