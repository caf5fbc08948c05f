"""`torch.compile`, where it pays."""

from __future__ import annotations

import shutil
from typing import Any, cast

import torch
from torch import nn

from llmctl.errors import UserError
from llmctl.model import fast
from llmctl.train.device import compute_dtype
from llmctl.train.fsdp import blocks
from llmctl.train.settings import TrainSettings

# Measured on two cores with bf16 (3 M parameters, rows of 256): steps are a quarter faster (10,900 to 13,600 tokens/s),
# and the first one takes 45 s. At the 0.25 TFLOP/s of such a run that is won back after four minutes; this is ten.
_WORTH_IT = 1.5e14


def compiled(model: nn.Module, source: Any, settings: TrainSettings) -> nn.Module:
    """`model` with its forward pass compiled where that is asked for; its weights and other methods stay the same."""
    return cast(nn.Module, torch.compile(model, **_how(source))) if wanted(model, source, settings) else model


def as_trained(model: nn.Module) -> nn.Module:
    """`model` as a long run of batches of one shape has it: through its kernels, or compiled where there are none."""
    covered = fast.covers(model) and compute_dtype("auto", next(model.parameters()).device) == torch.bfloat16
    return model if covered else cast(nn.Module, torch.compile(model, dynamic=False))


def compile_blocks(model: nn.Module, source: Any) -> None:
    """Compile the blocks of `model`, each by itself, in place: FSDP fetches weights between them."""
    for block in blocks(model):
        block.compile(**_how(source))
    model.compiled_blocks = True  # type: ignore[assignment]  # the loss then compiles its part too


def wanted(model: nn.Module, source: Any, settings: TrainSettings) -> bool:
    """Whether to compile. What "auto" decides depends on the whole run alone: a resumed one computes as it began."""
    fixed = _how(source)["dynamic"] is False
    asked = settings.compile
    if asked == "auto":
        return (
            fixed
            and not _has_kernels(model, settings)
            and _can_compile(model)
            and _flops(model, source, settings) > _WORTH_IT
        )
    if asked and not _can_compile(model):
        raise UserError(
            "torch.compile needs a C++ compiler, and there is none", "train.compile", "install g++, or false"
        )
    return asked


def _how(source: Any) -> dict[str, Any]:
    """One graph where all batches have one shape."""
    return {"dynamic": False if getattr(source, "fixed_shape", False) else None}


def _can_compile(model: nn.Module) -> bool:
    on_cpu = next(model.parameters()).device.type == "cpu"
    return not on_cpu or any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def _has_kernels(model: nn.Module, settings: TrainSettings) -> bool:
    """Whether the layers run through kernels of their own, which a compiled graph would not take."""
    device = next(model.parameters()).device
    return compute_dtype(settings.precision, device) == torch.bfloat16 and fast.covers(model)


def _flops(model: nn.Module, source: Any, settings: TrainSettings) -> float:
    """About what the run computes: 6 a weight and token. A source that cannot be asked twice says its tokens itself."""
    tokens = getattr(source, "tokens_a_step", 0) or sum(b.tokens for b in source.batches(0))
    return 6.0 * sum(p.numel() for p in model.parameters()) * tokens * settings.steps
