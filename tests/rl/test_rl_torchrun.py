"""Practice in several processes: the roll-outs, the rewards and the losses of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rl_tiny import save_tiny

from llmctl.console import Console
from llmctl.model.folder import load_model
from llmctl.recipe.overrides import apply
from llmctl.rl.config import RlConfig
from llmctl.rl.stage import run
from llmctl.workspace import Artifact, Workspace

REWARD = """
import os, signal

CALLS = 0

def length(row):
    global CALLS
    CALLS += 1
    with open(f"calls-{os.getppid()}", "a") as f:
        f.write(".")
    if CALLS == int(os.environ.get("DIES_AT", "0")):
        os.kill(os.getppid(), signal.SIGKILL)
    return row["reply"].count("e") - len(row["reply"]) / 8

def picky(row):
    length(row)
    if row["tokens"] % 2:
        raise ValueError("odd")
    return row["tokens"]

def never(row):
    raise ValueError("never")
"""
SETTINGS = [
    "sums.digits=[1,1]", "rollouts.prompts=3", "rollouts.group=4", "rollouts.max_new_tokens=8", "train.steps=4",
    "train.save_every=1", "train.precision=fp32", "train.optimizer.lr=0.003", "eval_items=5", "show_every=2",
    "micro_tokens=64", "function=mine_together:length", "guard.every=2", "guard.action=warn", "guard.items=5",
]  # fmt: skip


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_together.py").write_text(REWARD)
    return save_tiny(tmp_path / "tiny")


def in_two(model: Path, out: str, workspace: Workspace, *more: str, dies_at: int = 0) -> subprocess.CompletedProcess:
    sets = [part for setting in (*SETTINGS, *more) for part in ("-s", setting)]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *start, "-m", "llmctl", "rl", str(model), "-o", out, "-w", str(workspace.root), *sets],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DIES_AT": str(dies_at)},
    )  # fmt: skip


def in_one(model: Path, out: str, workspace: Workspace, *more: str) -> Artifact:
    given = apply({"model": str(model), "out": out}, [*SETTINGS, *more])
    return run(RlConfig.model_validate(given), workspace, Console(quiet=True))


def column(found: Artifact, name: str) -> list[Any]:
    return [r[name] for r in found.metrics() if name in r]


def same(one: Artifact, two: Artifact) -> None:
    """The same updates, up to the rounding of sums."""
    assert len(column(one, "loss")) == 4 and column(one, "loss") == pytest.approx(column(two, "loss"), abs=1e-5)
    weights = [load_model(a.path)[0].state_dict() for a in (one, two)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        [
            "method.name=ppo",
            "method.updates=2",
        ],  # a critic, a reference, KL in the reward, several updates on a set of roll-outs
        ["method.name=dapo", "method.overlong=4", "function=mine_together:picky"],  # some without a reward
    ],
    ids=["ppo", "dapo"],
)
def test_two_processes_are_one(more: list[str], model: Path, workspace: Workspace) -> None:
    one = in_one(model, "one", workspace, *more)
    calls = {f: f.stat().st_size for f in Path.cwd().glob("calls-*")}
    done = in_two(model, "two", workspace, *more)
    assert done.returncode == 0, done.stderr
    shares = [f.stat().st_size for f in Path.cwd().glob("calls-*") if f not in calls]
    assert sum(shares) == sum(calls.values()) and max(shares, default=0) < 0.7 * sum(calls.values()), "each a share"
    two = workspace.find("two")
    same(one, two)
    for name in ("reward", "group_std", "rollout_tokens", "length", "unscored", "heldout_length", "guard_proxy"):
        assert column(one, name) and column(one, name) == pytest.approx(column(two, name), abs=1e-6), name
    shown = [[(r["rank"], r["question"], r["reply"]) for r in rows] for rows in column(one, "rollouts")]
    assert shown == [[(r["rank"], r["question"], r["reply"]) for r in rows] for rows in column(two, "rollouts")]
    assert one.figures["rollouts"] == two.figures["rollouts"] >= 2 * 12


@pytest.mark.slow
def test_a_killed_run_of_two_is_ended_by_one(model: Path, workspace: Workspace) -> None:
    whole = in_one(model, "whole", workspace)
    killed = in_two(model, "killed", workspace, dies_at=22)  # in the middle of scoring the roll-outs of a step
    assert killed.returncode != 0 and "Signal 9" in killed.stderr
    saved = [p.name for p in workspace.root.rglob("checkpoints/step-*")]
    assert saved and "step-000004" not in saved
    same(whole, in_one(model, "killed", workspace))


@pytest.mark.slow
def test_what_is_wrong_in_one_process_is_said_once(model: Path, workspace: Workspace) -> None:
    done = in_two(model, "wrong", workspace, "function=mine_together:never")
    assert done.returncode != 0 and done.stderr.count("has no number for any of 5 replies") == 1, done.stderr
