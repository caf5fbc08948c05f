"""Practice in several processes: the roll-outs, the rewards and the losses of one."""

from __future__ import annotations

import json
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
RUNS = {
    "ppo": ["method.name=ppo", "method.updates=2"],  # critic, reference, two updates
    "dapo": ["method.name=dapo", "method.overlong=4", "function=mine_together:picky"],  # some without a reward
    "guarded": ["method=grpo", "guard.action=stop", "guard.kl_budget=1e-9"],  # ends at step 2 with the best weights
    "alone": ["method.name=rloo", "rollouts.prompts=1", "micro_tokens=4096"],  # one problem: one is idle
    "picked": ["method.name=best-of-n", "method.keep=best"],
    "ranked": ["method.name=best-of-n", "method.keep=ranking"],
    "dpo": ["method=dpo", "data=[pairs.jsonl]", "rollouts.prompts=5", "eval_every=1", "guard.every=0"],
}  # fmt: skip
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def prepare(folder: Path) -> Path:
    """The model, and what else the runs read."""
    (folder / "mine_together.py").write_text(REWARD)
    pairs = [{"prompt": f"What is {i} + 3?", "chosen": f"The answer is {i + 3}.", "rejected": "no" + "!" * (i % 5)}
             for i in range(40)]  # fmt: skip
    (folder / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    return save_tiny(folder / "tiny")


def settings(out: str, *more: str) -> dict[str, Any]:
    return apply({"model": "tiny", "out": out}, [*SETTINGS, *more])


def in_one(workspace: Workspace, out: str, *more: str) -> Artifact:
    return run(RlConfig.model_validate(settings(out, *more)), workspace, Console(quiet=True))


def in_two(workspace: Workspace, out: str, *more: str, **environment: str) -> subprocess.CompletedProcess:
    sets = [part for setting in (*SETTINGS, *more) for part in ("-s", setting)]
    command = [sys.executable, *TWO, "-m", "llmctl", "rl", "tiny", "-o", out, "-w", str(workspace.root), *sets]
    return subprocess.run(command, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1", **environment})  # fmt: skip


def column(found: Artifact, name: str) -> list[Any]:
    return [r[name] for r in found.metrics() if name in r]


def same(one: Artifact, two: Artifact) -> None:
    """The same updates, up to the rounding of sums."""
    assert column(one, "loss") and column(one, "loss") == pytest.approx(column(two, "loss"), abs=1e-5)
    weights = [load_model(a.path)[0].state_dict() for a in (one, two)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-4, rtol=1e-3)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """With the folder of the model as the current one."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Every one of RUNS made by two processes: by the same two, since starting them is most of the work."""
    folder = tmp_path_factory.mktemp("two")
    prepare(folder)
    given = [settings(name, *more) for name, more in RUNS.items()]
    script = Path(__file__).with_name("rl_processes.py")
    done = subprocess.run([sys.executable, *TWO, str(script), str(folder / "workspace"), json.dumps(given)], cwd=folder,
                          capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Workspace(folder / "workspace")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "dapo", "guarded", "alone"])
def test_two_processes_are_one(name: str, two: Workspace, workspace: Workspace) -> None:
    whole, shared = in_one(workspace, name, *RUNS[name]), two.find(name)
    same(whole, shared)
    for key in ("reward", "group_std", "rollout_tokens", "unscored", "heldout_length", "guard_proxy", "guard_gold"):
        assert column(whole, key) and column(whole, key) == pytest.approx(column(shared, key), abs=1e-5), key
    shown = [
        [(r["rank"], r["question"], r["reply"]) for rows in column(a, "rollouts") for r in rows]
        for a in (whole, shared)
    ]
    assert shown[0] == shown[1] != []
    assert whole.figures["rollouts"] == shared.figures["rollouts"]
    assert ("stopped" in whole.figures) == ("stopped" in shared.figures) == (name == "guarded")


@pytest.mark.slow
def test_each_process_scores_a_share(two: Workspace) -> None:
    calls = [f.stat().st_size for f in two.root.parent.glob("calls-*")]
    assert len(calls) == 2 and max(calls) < 0.7 * sum(calls), calls


@pytest.mark.slow
def test_two_processes_pick_and_compare_as_one(two: Workspace, workspace: Workspace) -> None:
    for name in ("picked", "ranked"):
        whole, shared = in_one(workspace, name, *RUNS[name]), two.find(name)
        for file in ("train.jsonl", "heldout.jsonl"):
            assert whole.file(file).read_text() == shared.file(file).read_text() != ""
        assert whole.figures == shared.figures
    whole, shared = in_one(workspace, "dpo", *RUNS["dpo"]), two.find("dpo")
    same(whole, shared)
    assert column(whole, "heldout_loss") == pytest.approx(column(shared, "heldout_loss"), abs=1e-5) != []


@pytest.mark.slow
def test_a_killed_run_of_two_is_ended_by_one(workspace: Workspace) -> None:
    whole = in_one(workspace, "whole")
    killed = in_two(workspace, "killed", DIES_AT="22")  # in the middle of scoring the roll-outs of a step
    assert killed.returncode != 0 and "Signal 9" in killed.stderr
    saved = [p.name for p in workspace.root.rglob("checkpoints/step-*")]
    assert saved and "step-000004" not in saved
    same(whole, in_one(workspace, "killed"))


@pytest.mark.slow
def test_what_is_wrong_in_a_process_is_said_once(workspace: Workspace) -> None:
    done = in_two(workspace, "wrong", "function=mine_together:never")
    assert done.returncode != 0 and done.stderr.count("has no number for any of 5 replies") == 1, done.stderr
