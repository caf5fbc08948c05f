"""Checkpoints: a folder of safetensors and JSON, whole or not there at all, and nothing pickled."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llmctl.workspace.files import fsync_dir, fsync_file, json_safe


@dataclass
class Checkpoint:
    """What a run was at `step` updates."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    extra: dict[str, Any]  # the tensors of a `Stateful`
    state: dict[str, Any]  # JSON


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, each once however often it is tied, and the buffers that are part of the state."""
    kept = set(model.state_dict())
    buffers = {n: b for n, b in model.named_buffers() if n in kept}
    return {**dict(model.named_parameters()), **buffers}


@torch.no_grad()
def put_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy `weights` into `model` in place, so that an optimizer's view of them stays valid."""
    for name, tensor in weights_of(model).items():
        tensor.copy_(weights[name])


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: dict[str, Tensor],
    state: dict[str, Any],
    extra: dict[str, Tensor] | None = None,
    keep_last: int = 2,
) -> Path:
    """Write `folder/step-NNNNNN` beside its place, flush it, rename it; then drop all but the newest `keep_last`."""
    final = place(folder, step)
    temporary = folder / f".{final.name}.{os.getpid()}.tmp"
    for stale in folder.glob(".step-*.tmp"):  # what a kill left half written
        shutil.rmtree(stale, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, tensors in (("model", weights_of(model)), ("optimizer", optimizer), ("extra", extra or {})):
        path = temporary / f"{name}.safetensors"
        save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, path)
        fsync_file(path)
    path = temporary / "state.json"
    path.write_text(json.dumps(json_safe({"step": step, **state}), indent=1), encoding="utf-8")
    fsync_file(path)
    fsync_dir(temporary)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    fsync_dir(folder)
    for old in sorted(folder.glob("step-*"))[:-keep_last]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def place(folder: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` updates."""
    return folder / f"step-{step:06d}"


def load(path: Path) -> Checkpoint:
    """Read one checkpoint. OSError, ValueError or safetensors' own error where it is damaged."""
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    tensors = {name: load_file(path / f"{name}.safetensors") for name in ("model", "optimizer", "extra")}
    return Checkpoint(int(state["step"]), state=state, **tensors)


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be read, and a line for each newer one that cannot."""
    damaged: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            return load(path), damaged
        except Exception as e:  # safetensors' error class is its own; whatever the damage, an older one may be whole
            damaged.append(f"{path}: {e}")
    return None, damaged
