"""Roll-outs in several processes (`torchrun`): each answers and scores its share of the problems, and all see all.

Whole groups are shared out, so that a prompt is run once; the noise of a reply depends on the seed and on the number of
its problem among all, so that two processes give the replies of one. What is exchanged is numbers and JSON: nothing is
pickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from llmctl.errors import UserError
from llmctl.generate.engine import Sample
from llmctl.rl.collate import Rows
from llmctl.rl.rewards import Rewards, Rollout
from llmctl.train import distributed
from llmctl.train.batch import Batch
from llmctl.verify import Item

Groups = list[list[Rollout]]


def share(count: int) -> range:
    """This process's part of `count` things; those of all processes together are all of them, in order."""
    rank, size = distributed.rank(), distributed.size()
    return range(count * rank // size, count * (rank + 1) // size)


def shared(items: Sequence[Item], rewards: Rewards, answered: Callable[[range], Groups]) -> Groups:
    """The scored groups of all `items`, of which this process makes what `answered` gives for its share.

    A UserError in one process (a reward that hangs on and on) is raised in all of them, or the others would wait.
    """
    if distributed.size() == 1:
        return answered(range(len(items)))
    said: dict[str, object]
    mine: Groups = []
    try:
        mine = answered(share(len(items)))
        said = {"problems": rewards.problems, "prompts": [g[0].prompt for g in mine if g],
                "replies": [[_meta(r) for r in g] for g in mine]}  # fmt: skip
    except UserError as e:
        said = {"error": [e.what, e.where, e.fix]}
    flat = [r.sample for g in mine for r in g]
    texts = [json.loads(t) for t in gather_text(json.dumps(said))]
    ids = gather(torch.tensor([i for s in flat for i in s.ids], dtype=torch.int64))
    logprobs = gather(torch.tensor([p for s in flat for p in s.logprobs], dtype=torch.float64))
    forced = gather(torch.tensor([f for s in flat for f in s.forced], dtype=torch.uint8))
    if error := next((t["error"] for t in texts if "error" in t), None):
        raise UserError(*error)
    rewards.problems = [line for t in texts for line in t["problems"]]
    numbers = (iter(torch.cat(part).tolist()) for part in (ids, logprobs, forced))
    prompts = [p for t in texts for p in t["prompts"]]
    metas = [g for t in texts for g in t["replies"]]
    return _rebuilt(items, prompts, metas, *numbers)


def _meta(r: Rollout) -> dict[str, object]:
    """What there is to tell of a roll-out besides its tokens. NaN is Python's JSON, which both ends speak."""
    return {"n": len(r.sample.ids), "finish": r.sample.finish, "text": r.sample.text, "correct": r.correct,
            "formatted": r.formatted, "parts": r.parts, "total": r.total}  # fmt: skip


def _rebuilt(
    items: Sequence[Item],
    prompts: list[list[int]],
    metas: list[list[dict]],
    ids: Iterator[int],
    logprobs: Iterator[float],
    forced: Iterator[int],
) -> Groups:
    def rollout(item: Item, prompt: list[int], m: dict) -> Rollout:
        n = range(m["n"])
        sample = Sample([next(ids) for _ in n], [bool(next(forced)) for _ in n], [next(logprobs) for _ in n],
                        m["finish"], m["text"])  # fmt: skip
        return Rollout(item, prompt, sample, m["correct"], m["formatted"], m["parts"], m["total"])

    return [[rollout(item, p, m) for m in group] for item, p, group in zip(items, prompts, metas, strict=True)]


def mine(rows: Rows) -> Rows:
    """This process's rows: every so-manyth, since they are sorted by length. One that counts for nothing where there
    are fewer rows than processes: each has to have gradients to add.
    """
    rank, size = distributed.rank(), distributed.size()
    if size == 1:
        return rows
    part = {k: v[rank::size] for k, v in rows.items()}
    if len(part["ids"]):
        return part
    idle = ("weights", "units")
    return {k: torch.zeros_like(v[:1]) if k in idle else v[:1] for k, v in rows.items()}


def divided(batch: Batch) -> Batch:
    """`batch`, marked as this process's own."""
    return replace(batch, divided=distributed.size() > 1)


def gather(flat: Tensor) -> list[Tensor]:
    """The (n,) tensor of every process, in the order of the processes; n may differ."""
    device = _device()
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(distributed.size())]
    dist.all_gather(sizes, torch.tensor([len(flat)], device=device))
    lengths = [int(n) for n in sizes]
    padded = torch.zeros(max(lengths), dtype=flat.dtype, device=device)
    padded[: len(flat)] = flat.to(device)
    found = [torch.empty_like(padded) for _ in lengths]
    if max(lengths):
        dist.all_gather(found, padded)
    return [t[:n].cpu() for t, n in zip(found, lengths, strict=True)]


def gather_text(text: str) -> list[str]:
    """The text of every process."""
    said = torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).copy())
    return [t.numpy().tobytes().decode() for t in gather(said)]


def told(say: Callable[[], str]) -> str:
    """What process 0 says, in every process; only there is it asked."""
    if distributed.size() == 1:
        return say()
    return gather_text("" if distributed.rank() else say())[0]


def summed(found: Tensor) -> Tensor:
    """The sum over the processes of a tensor in host memory."""
    if distributed.size() == 1:
        return found
    there = found.to(_device())
    dist.all_reduce(there)
    return there.cpu()


def as_first(model: nn.Module) -> None:
    """Give the weights of process 0 to all."""
    if distributed.size() > 1:
        for p in model.parameters():
            dist.broadcast(p.data, 0)


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
