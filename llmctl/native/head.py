"""The softmax behind a model's head, for bfloat16 logits on a CPU (head.cpp)."""

from __future__ import annotations

import torch
from torch import Tensor

from llmctl.native.build import library
from llmctl.native.call import call


def suits(logits_dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernels are there for logits of this type."""
    return (
        device.type == "cpu" and logits_dtype == torch.bfloat16 and None not in (library("head"), library("gradient"))
    )


def softmax_loss(logits: Tensor, targets: Tensor, weights: Tensor, cap: float) -> Tensor:
    """What `train.loss.softmax_loss` gives: the sum of weights x cross-entropy; its gradient takes the place of the
    logits (N,V) bfloat16. `targets` (N,) int64, `weights` (N,) float32.
    """
    losses = torch.empty(len(logits))
    kernels = library("head")
    assert kernels is not None
    call(kernels.softmax_loss, logits, targets.contiguous(), weights.contiguous(), losses, *logits.shape, float(cap))
    return losses.sum()
