"""Several processes under `torchrun`: each takes its part of the rows of every batch; gradients and counts are summed.

The gradients of sums, added over the processes and divided by the sum of counts, are the gradient of one process that
has all rows. Weights and optimizer are the same in every process, so a checkpoint does not depend on how many there
were. Process 0 writes; the others read its checkpoints and leave nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from llmctl.errors import UserError
from llmctl.train.batch import Batch

_BUCKET = 64 << 20  # bytes of gradients in one reduction: few calls, little memory twice
_PATIENCE = timedelta(minutes=30)  # the others wait while process 0 evaluates or saves


def size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is."""
    return int(os.environ.get("RANK", "0"))


def join() -> None:
    """Meet the other processes; where there is one alone, nothing."""
    if size() > 1 and not dist.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)


def leave() -> None:
    """Part from them, all together."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def agree(number: int) -> int:
    """What process 0 says, in every process."""
    if size() == 1:
        return number
    told = torch.tensor([number], device=_device())
    dist.broadcast(told, 0)
    return int(told.item())


def part(batch: Batch) -> Batch:
    """This process's rows of a batch; those of all processes together are all of them, each once."""
    if size() == 1 or batch.divided:
        return batch
    rows = len(batch.ids)
    if rows < size():
        raise UserError(
            f"a batch of {rows} rows cannot be divided among {size()} processes",
            "WORLD_SIZE",
            "take more rows an update, or fewer processes",
        )
    mine = slice(rows * rank() // size(), rows * (rank() + 1) // size())
    cut = {name: t[mine] for name in ("ids", "targets", "weights", "positions", "segments")
           if (t := getattr(batch, name)) is not None}  # fmt: skip
    extra = {name: t[mine] if t.ndim and len(t) == rows else t for name, t in batch.extra.items()}
    share = batch.tokens * len(cut["ids"]) // rows
    return replace(batch, **cut, extra=extra, tokens=share, trained=None)


def sum_gradients(grads: Sequence[Tensor]) -> None:
    """Replace every tensor by its sum over the processes, in place. All processes give the same shapes in one order."""
    if size() == 1:
        return
    bucket: list[Tensor] = []
    filled = 0
    for i, grad in enumerate(grads):
        bucket.append(grad)
        filled += grad.numel() * grad.element_size()
        if filled >= _BUCKET or i == len(grads) - 1:
            flat = torch.cat([g.flatten() for g in bucket])
            dist.all_reduce(flat)
            for g, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                g.copy_(summed.view_as(g))
            bucket, filled = [], 0


def sum_numbers(numbers: Sequence[float]) -> list[float]:
    """Each number's sum over the processes."""
    if size() == 1:
        return list(numbers)
    flat = torch.tensor(list(numbers), dtype=torch.float64, device=_device())
    dist.all_reduce(flat)
    return [float(n) for n in flat.tolist()]


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
