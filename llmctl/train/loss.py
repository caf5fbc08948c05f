"""Next-token cross-entropy, at the trained positions only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.native import head as kernels
from llmctl.native.gradient import matrix_gradient
from llmctl.train.batch import Batch

# Positions a piece of the head and softmax, twice as many where it is compiled. 4,096 positions, 8,192 tokens, width
# 384, bfloat16, both passes on one core: compiled 267 ms in pieces of 256, 216 of 512, 200 of 1,024. Uncompiled the
# float32 logits of a piece should stay near the caches: 52 ms of 512, 83 of 1,024, 99 in one on two cores.
CHUNK = 512
# Where the softmax is a kernel a piece may as well be as large as this many logits, 64 MB: the matrix's gradient is
# gone through once a piece (139 ms in pieces of 1,024, 130 in one).
_LOGITS = 1 << 25


@dataclass
class Loss:
    """A micro-batch's part of a loss: `total` summed over `count` units (trained positions, pairs, ...).

    The step's gradient is that of the sum of totals over all micro-batches divided by the sum of their counts, so how a
    batch is cut into micro-batches does not matter. `logs` are sums over the same units.
    """

    total: Tensor
    count: float | Tensor
    logs: dict[str, float] = field(default_factory=dict)


def lm_loss(model: nn.Module, batch: Batch) -> Loss:
    """Weighted cross-entropy of `batch.targets`, in nats."""
    hidden = model(batch.ids, batch.positions, batch.segments).flatten(0, 1)
    targets, weights = batch.targets.flatten(), batch.weights.flatten()
    if batch.trained is not None:
        hidden, targets, weights = (x.index_select(0, batch.trained) for x in (hidden, targets, weights))
    return Loss(cross_entropy(model, hidden, targets, weights), weights.sum())


def cross_entropy(model: Any, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The sum of weights x cross-entropy over N positions: hidden (N, D), targets (N,), weights (N,) -> ()."""
    # torch.compile's wrapper, or blocks that are compiled one by one.
    compiled = hasattr(model, "_orig_mod") or getattr(model, "compiled_blocks", False)
    return _HeadLoss.apply(hidden, targets, weights, model.head, getattr(model, "softcap", 0.0), compiled)


def softmax_loss(logits: Tensor, targets: Tensor, weights: Tensor, cap: float) -> Tensor:
    """The sum of weights x cross-entropy in float32; its gradient takes the place of the logits (N, V), in their type.

    Where there is a `cap` the logits are bounded by it first (cap x tanh(logits / cap)).
    """
    x = logits.float()
    if cap:
        x = cap * torch.tanh(x / cap)
    total = torch.logsumexp(x, 1)
    right = x.gather(1, targets[:, None]).squeeze(1)
    hit = torch.arange(x.shape[1], device=x.device) == targets[:, None]
    gradient = (torch.exp(x - total[:, None]) - hit.float()) * weights[:, None]
    if cap:
        gradient = gradient * (1 - (x / cap) ** 2)
    logits.copy_(gradient)
    return ((total - right) * weights).sum()


def softmax_loss_in_place(logits: Tensor, targets: Tensor, weights: Tensor, cap: float) -> Tensor:
    """The same, bit for bit, where nothing is compiled: the passes allocate nothing. For 2,048 positions and 24,576
    tokens in bfloat16 on one core the head's loss and gradients take 0.66 s instead of 1.25.
    """
    x = logits.float()
    if cap:
        x = cap * torch.tanh(x / cap)
    total = torch.logsumexp(x, 1)
    loss = ((total - x.gather(1, targets[:, None]).squeeze(1)) * weights).sum()
    slope = 1 - (x / cap) ** 2 if cap else None
    x.sub_(total[:, None]).exp_()
    x[torch.arange(len(x), device=x.device), targets] -= 1
    x.mul_(weights[:, None])
    logits.copy_(x if slope is None else x.mul_(slope))
    return loss


def _add(total: Tensor, d_logits: Tensor, hidden: Tensor) -> None:
    total.add_(d_logits.T @ hidden)


def _add_natively(total: Tensor, d_logits: Tensor, hidden: Tensor) -> None:
    matrix_gradient(d_logits, hidden, total)


def _ways(dtype: torch.dtype, device: torch.device, vocabulary: int, compiled: bool) -> tuple[Any, Any, int]:
    """How to take a softmax and add to its matrix, and for how many positions at once."""
    if kernels.suits(dtype, device):
        return kernels.softmax_loss, _add_natively, max(2 * CHUNK, _LOGITS // vocabulary)
    return (*_fused(), 2 * CHUNK) if compiled else (softmax_loss_in_place, _add, CHUNK)


@cache
def _fused() -> Any:
    """One pass over the logits instead of six: 0.17 s for 0.26 (4,096 positions, 8,192 tokens, one core, with the
    products around it; the kernels of `native` take 0.12); and a sum of two types without a copy in between, 0.8 ms a
    piece instead of 3.3.
    """
    sum_of_two_types = torch.compile(torch.Tensor.add_, dynamic=True)

    def add(total: Tensor, d_logits: Tensor, hidden: Tensor) -> None:
        sum_of_two_types(total, d_logits.T @ hidden)

    return torch.compile(softmax_loss, dynamic=True), add


class _HeadLoss(torch.autograd.Function):
    """Head, softmax and cross-entropy piece by piece, each piece's gradient taken at once: no more than one piece of
    logits is ever held. (Liger, torchtitan's chunked loss and others do the same.)
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, targets: Tensor, weights: Tensor, head: Tensor, cap: float, compiled: bool
    ) -> Tensor:
        device, needed, learned = hidden.device.type, any(ctx.needs_input_grad), ctx.needs_input_grad[3]
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.dtype
        h, w = hidden.detach().to(dtype), head.detach().to(dtype)
        softmax, add, size = _ways(dtype, hidden.device, len(w), compiled)
        total = torch.zeros((), device=hidden.device)
        d_hidden = torch.empty_like(h) if needed else None
        d_head = torch.zeros_like(head) if learned else None  # a frozen head (LoRA) saves a third of the products
        space = h.new_empty(min(size, len(h)), len(w))
        for at in range(0, len(h), size):
            piece = slice(at, at + size)
            logits = torch.mm(h[piece], w.T, out=space[: len(h) - at])
            if d_hidden is None:
                x = cap * torch.tanh(logits.float() / cap) if cap else logits.float()
                total += F.cross_entropy(x, targets[piece], reduction="none") @ weights[piece]
                continue
            total += softmax(logits, targets[piece], weights[piece], cap)
            torch.mm(logits, w, out=d_hidden[piece])
            if d_head is not None:
                add(d_head, logits, h[piece])
        if d_hidden is not None:
            ctx.save_for_backward(d_hidden.to(hidden.dtype), d_head)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        d_hidden, d_head = ctx.saved_tensors
        if outer[0].device.type == "cpu" and float(outer[0]) == 1:  # a loss by itself: no pass over the head's gradient
            return d_hidden, None, None, d_head, None, None
        return d_hidden * outer[0], None, None, None if d_head is None else d_head * outer[0], None, None
