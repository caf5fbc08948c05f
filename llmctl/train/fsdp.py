"""FSDP2 under `torchrun`: each process keeps a part of every weight, its gradient and its moments.

The model that was handed in becomes a shell without memory; a twin of it, sharded block by block, computes the steps.
For what is done between steps (samples, measuring, a checkpoint) the shell is filled with the whole weights and is the
plain model again: nothing in it asks the other processes for anything, so they may do different things with it. The
optimizer sees the local parts as plain tensors; only Muon needs a whole matrix, and each process makes its share of
them whole.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from llmctl.train.distributed import rank, size


def twin(model: nn.Module) -> Any:
    """Other modules with the same parameters: what is changed in them leaves `model` as it is."""
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(t): t for t in shared})


class Shards:
    """A model parted among the processes; `model` itself is empty outside of `whole`."""

    def __init__(self, model: nn.Module, forward: nn.Module, precision: torch.dtype) -> None:
        """Shard `forward`, a twin of `model`, and take the memory of `model`.

        Blocks travel as `precision`, which is what their products are computed in; embedding and head as they are.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        assert not list(model.buffers()), "a buffer would be lost with the shell's memory"
        self.model, self.device = model, next(model.parameters()).device
        mesh = init_device_mesh(self.device.type, (size(),))
        model.to("meta")
        low = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for block in blocks(forward):
            fully_shard(block, mesh=mesh, mp_policy=low)
        fully_shard(forward, mesh=mesh)
        for module in forward.modules():
            if isinstance(module, FSDPModule):  # the sum, as everywhere in training; by default it would be the mean
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        self._sharded: dict[str, Any] = dict(forward.named_parameters())
        self.local = {n: nn.Parameter(p.to_local().detach(), p.requires_grad) for n, p in self._sharded.items()}

    def take_gradients(self) -> None:
        """Hand the gradients of the step, each process's part of their sum, to the parameters in `local`."""
        for name, p in self._sharded.items():
            self.local[name].grad = None if p.grad is None else p.grad.to_local()
            p.grad = None

    @contextmanager
    def whole(self) -> Iterator[nn.Module]:
        """The plain model with all its weights, in every process; changes to it are lost."""
        self.fill()
        try:
            yield self.model
        finally:
            self.model.to("meta")

    @torch.no_grad()
    def fill(self) -> None:
        """Make the plain model whole, to stay so."""
        self.model.to_empty(device=self.device)
        for name, p in self.model.named_parameters():
            p.copy_(self.gather(self.local[name], p.shape))

    def gather(self, part: Tensor, shape: torch.Size) -> Tensor:
        """The whole tensor of that shape from every process's rows of it."""
        rows = rows_of_each(shape[0])
        padded = part.new_zeros(rows[0], *shape[1:])
        padded[: len(part)] = part
        found = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(found, padded)
        return torch.cat([piece[:n] for piece, n in zip(found, rows, strict=True)])

    def gather_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The optimizer's state as one process alone would have it; in process 0, empty in the others."""
        found = {}
        for key, part in state.items():
            full = self.gather(part, self._shape(key)) if part.ndim else part
            if rank() == 0:
                found[key] = full.cpu()
        return found

    def cut_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process's rows of such a state."""
        return {key: _mine(t) if t.ndim else t for key, t in state.items()}

    def rows(self, name: str) -> int:
        """Rows of the whole weight."""
        return int(self._sharded[name].shape[0])

    def _shape(self, key: str) -> torch.Size:
        return cast(torch.Size, self._sharded[key.rpartition(".")[0]].shape)


def rows_of_each(rows: int) -> list[int]:
    """How many of `rows` each process has: FSDP's cut, which is `torch.chunk`'s."""
    most = -(-rows // size())
    return [max(0, min(rows, (r + 1) * most) - r * most) for r in range(size())]


def across(parts: Tensor, rows: int, polar: Any) -> Tensor:
    """`polar` of whole matrices, of which each process has some rows: `parts` (N, its rows, K) to the same.

    The N matrices are dealt out; each process is sent all rows of its own, works on them, and sends the rows back: the
    work is shared, and every row travels twice whatever the number of processes.
    """
    each, owned = rows_of_each(rows), _dealt(len(parts))
    mine, width = owned[rank()], parts.shape[2]
    sent, received = [n * parts.shape[1] * width for n in owned], [mine * m * width for m in each]
    got = parts.new_empty(sum(received))
    dist.all_to_all_single(got, parts.contiguous().view(-1), received, sent)
    pieces = [g.view(mine, m, width) for g, m in zip(got.split(received), each, strict=True)]
    done = polar(torch.cat(pieces, 1)) if mine else parts.new_empty(0, rows, width)
    back = torch.cat([piece.reshape(-1) for piece in done.split(each, 1)])
    out = done.new_empty(parts.numel())
    dist.all_to_all_single(out, back, sent, received)
    return out.view(parts.shape)


def _dealt(count: int) -> list[int]:
    """How many of `count` matrices each process works on, in their order."""
    return [count * (r + 1) // size() - count * r // size() for r in range(size())]


def _mine(full: Tensor) -> Tensor:
    rows = rows_of_each(len(full))
    begin = sum(rows[: rank()])
    return full[begin : begin + rows[rank()]]


def blocks(model: nn.Module) -> Sequence[nn.Module]:
    """The layers of a model."""
    return [block for name, m in model.named_modules() if name.endswith("layers") for block in cast(Any, m)]
