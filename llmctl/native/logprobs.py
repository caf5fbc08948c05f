"""Log-probabilities and entropies from bfloat16 logits on a CPU, and their gradient (logprobs.cpp)."""

from __future__ import annotations

import torch
from torch import Tensor

from llmctl.native.build import library
from llmctl.native.call import call


def suits(logits_dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels are there for logits of this type."""
    return (
        device.type == "cpu"
        and logits_dtype == torch.bfloat16
        and None not in (library("logprobs"), library("gradient"))
    )


def measured(logits: Tensor, targets: Tensor, cap: float, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """What `rl.head.measured` gives, of contiguous logits (N,V)."""
    logp, entropy, total = (torch.empty(len(logits)) for _ in range(3))
    kernels = library("logprobs")
    assert kernels is not None
    call(kernels.measured, logits, targets.contiguous(), logp, entropy, total, *logits.shape, float(cap),
         1 / float(temperature))  # fmt: skip
    return logp, entropy, total


def turned(logits: Tensor, targets: Tensor, outer: Tensor, total: Tensor, cap: float, temperature: float) -> None:
    """What `rl.head.turned` does to contiguous logits (N,V)."""
    kernels = library("logprobs")
    assert kernels is not None
    call(kernels.turned, logits, targets.contiguous(), outer.contiguous(), total.contiguous(), *logits.shape,
         float(cap), 1 / float(temperature))  # fmt: skip
