"""The recipes of reinforcement learning, whole, in a small variant: R1-Zero and RLHF."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small import R1_ZERO, RLHF, flags

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


def test_rlhf(tmp_path: Path) -> None:
    steps = run("rlhf", tmp_path / "w", RLHF)
    workspace = Workspace(tmp_path / "w")
    for name in ("ppo", "grpo"):
        assert steps[name]["headline"]["label"] == "reward on held-out preferences"
        made = workspace.find(name, ["model"])
        rows = [r for r in made.metrics() if "reward_learned" in r]
        assert rows and all(r["accuracy"] == 0 and r["reward"] is not None for r in rows)
        curve = made.figures["guard"]
        assert curve[0]["sqrt_kl"] < 0.1 and all(row["gold"] == row["gold"] for row in curve)
    assert "explained" in next(r for r in workspace.find("ppo", ["model"]).metrics() if "value_mean" in r)
    assert steps["dpo"]["headline"]["label"] == "held-out pairs ranked right"
