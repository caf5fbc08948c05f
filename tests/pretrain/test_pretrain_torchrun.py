"""Several processes under torchrun: the losses, the weights and the checkpoints of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pretrain_made import make_tokens

from llmctl.model.folder import load_model
from llmctl.workspace import Artifact, Workspace

SETTINGS = [
    "depth=2", "model.width=32", "model.head_dim=16", "context=32", "batch_tokens=256", "train.steps=30",
    "train.save_every=5", "train.precision=fp32", "eval_every=0", "samples.every=0",
]  # fmt: skip


def command(workspace: Workspace, out: str, processes: int, *more: str) -> list[str]:
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    sets = [part for setting in (*SETTINGS, *more) for part in ("-s", setting)]
    return [sys.executable, *run, "-m", "llmctl", "pretrain", "little", "-o", out, "-w", str(workspace.root), *sets]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def trained(workspace: Workspace, out: str, processes: int, *more: str) -> Artifact:
    done = subprocess.run(
        command(workspace, out, processes, *more), capture_output=True, text=True, env=ENVIRONMENT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return workspace.find(out, ["model"])


def weights(artifact: Artifact) -> dict[str, torch.Tensor]:
    return load_model(artifact.path)[0].state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_are_one_with_the_same_batch(workspace: Workspace, parallel: str) -> None:
    make_tokens(workspace)
    how = (f"train.parallel={parallel}", "eval_every=10", "samples.every=10")
    one, two = trained(workspace, "one", 1, *how), trained(workspace, "two", 2, *how)
    losses = [[row["loss"] for row in artifact.metrics() if "loss" in row] for artifact in (one, two)]
    assert len(losses[0]) == 30 and losses[0][:8] == pytest.approx(losses[1][:8], rel=1e-5)
    # Another order of the same sums: Muon makes a rounding error in a small direction as large as any other.
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    for name, weight in weights(one).items():
        torch.testing.assert_close(weight, weights(two)[name], atol=2e-2, rtol=5e-2)
    assert [row.get("tokens") for row in one.metrics()] == [row.get("tokens") for row in two.metrics()]
    again = subprocess.run(
        command(workspace, "two", 2, *how), capture_output=True, text=True, env=ENVIRONMENT, timeout=300
    )
    assert again.returncode == 0 and "up to date" in again.stderr and again.stderr.count("up to date") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "before", "after"), [("ddp", 2, 1), ("fsdp", 2, 1), ("fsdp", 1, 2)])
def test_a_killed_run_goes_on_with_another_number_of_processes(
    workspace: Workspace, parallel: str, before: int, after: int
) -> None:
    make_tokens(workspace)
    whole, how = trained(workspace, "whole", 1), f"train.parallel={parallel}"
    process = subprocess.Popen(
        command(workspace, "cut", before, how), env=ENVIRONMENT, start_new_session=True, stderr=subprocess.DEVNULL
    )
    checkpoints = workspace.root / ".work/model/cut/checkpoints"
    while process.poll() is None and not list(checkpoints.glob("step-*")):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found = sorted(Path(p).name for p in checkpoints.glob("step-*"))
    assert found and found[-1] < "step-000030", "the kill came too late to test anything"
    cut = trained(workspace, "cut", after, how)
    rows = [row for row in cut.metrics() if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert [row["loss"] for row in rows] == pytest.approx(
        [row["loss"] for row in whole.metrics() if "loss" in row], rel=2e-2
    )


@pytest.mark.slow
def test_stages_that_write_alone_are_not_started_twice(workspace: Workspace, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("nothing")
    done = subprocess.run(
        [sys.executable, "-m", "llmctl", "filter", str(text), "-w", str(workspace.root)],
        env={**ENVIRONMENT, "WORLD_SIZE": "2", "RANK": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "filter runs in one process" in done.stderr
