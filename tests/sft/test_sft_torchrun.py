"""Fine-tuning in several processes: the losses, the weights and the figures of one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from sft_made import make_conversations, make_model

from llmctl.console import Console
from llmctl.model.folder import load_model
from llmctl.recipe.overrides import apply
from llmctl.sft import stage
from llmctl.sft.config import SftConfig
from llmctl.workspace import Artifact, Workspace

SETTINGS = [
    "batch_tokens=576", "rows_at_once=4", "context=64", "eval_items=6", "eval_new_tokens=8", "eval_every=4",
    "train.steps=10", "train.save_every=5", "train.precision=fp32", "train.optimizer.name=adamw",
]  # fmt: skip


def in_two(workspace: Workspace, *more: str) -> tuple[Artifact, str]:
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    sets = [part for setting in (*SETTINGS, *more) for part in ("-s", setting)]
    command = [
        sys.executable,
        *run,
        "-m",
        "llmctl",
        "sft",
        "base",
        "made",
        "-o",
        "two",
        "-w",
        str(workspace.root),
        *sets,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return workspace.find("two", ["model"]), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["lora.rank=4", "lora.dropout=0.0"]], ids=["whole", "adapters"])
def test_two_processes_are_one(workspace: Workspace, console: Console, more: list[str]) -> None:
    make_model(workspace)
    make_conversations(workspace)
    given = {"model": "base", "conversations": ["made"], "out": "one"}
    one = stage.run(SftConfig.model_validate(apply(given, [*SETTINGS, *more])), workspace, console)
    two, said = in_two(workspace, *more)

    def column(made: Artifact, name: str) -> list[Any]:
        return [row[name] for row in made.metrics() if name in row]

    # Nine rows in passes of four: three passes, of which no process may come away with nothing.
    assert len(column(one, "loss")) == 10 and column(one, "loss") == pytest.approx(column(two, "loss"), rel=1e-4)
    assert column(one, "heldout_loss") == pytest.approx(column(two, "heldout_loss"), rel=1e-4)
    assert len(column(two, "heldout_right")) == 2 and two.figures["headline"]["label"] == "held-out answers right"
    weights = [load_model(made.path)[0].state_dict() for made in (one, two)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=2e-3, rtol=1e-2)
    assert said.count("an example in the format") == 1, "one process speaks"
