"""Rankings as tensors: which prompts a step sees, and how they are cut into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from llmctl.errors import UserError
from llmctl.rm.data import Ranking
from llmctl.train import distributed
from llmctl.train.batch import Batch
from llmctl.train.order import Shuffle


class RankingSource:
    """The comparisons of each step: every one once an epoch, in an order that depends on the seed alone.

    Under torchrun each process takes its share of a step's prompts, and their rows stay together. `ties` are compared
    too, where the loss knows what to do with them.
    """

    def __init__(
        self, rankings: Sequence[Ranking], prompts: int, micro_tokens: int, seed: int, ties: bool = False
    ) -> None:
        if prompts < distributed.size():
            raise UserError(
                f"{prompts} prompts cannot be divided among {distributed.size()} processes", "prompts",
                "take more prompts a step, or fewer processes",
            )  # fmt: skip
        self.rankings, self.prompts, self.micro_tokens, self.ties = rankings, prompts, micro_tokens, ties
        self.order = Shuffle(len(rankings), seed)

    def batches(self, step: int) -> list[Batch]:
        """This process's micro-batches of update `step`."""
        drawn = [self.rankings[i] for _, i in self.order.take(step * self.prompts, self.prompts)]
        mine = drawn[distributed.rank() :: distributed.size()]
        return [collate(part, self.ties) for part in cuts(mine, self.micro_tokens)]


def cuts(rankings: Sequence[Ranking], tokens: int) -> Iterator[list[Ranking]]:
    """The rankings, shortest first, in parts that have at most `tokens` tokens when padded, or a single ranking.

    A ranking is never taken apart: its loss needs all of its scores.
    """
    part: list[Ranking] = []
    rows = 0
    for ranking in sorted(rankings, key=lambda r: r.longest):
        rows += len(ranking.replies)
        if part and rows * ranking.longest > tokens:
            yield part
            part, rows = [], len(ranking.replies)
        part.append(ranking)
    if part:
        yield part


def collate(rankings: Sequence[Ranking], ties: bool = False) -> Batch:
    """All replies of `rankings`, one below the other, padded on the right to (B, T).

    `extra`: `lengths` (B,); of each pair its rows `better` and `worse` (P,), how much better the one is (`strength`,
    see `Ranking`), whether it is `tied` (left out unless `ties`), and its weight `share`: one over the number of pairs
    of its prompt, so that each prompt counts once however many replies it has. `choice` (P,) numbers the better
    replies, and `choice_share` is one over how many a prompt has.
    """
    rows, lengths = padded([reply for ranking in rankings for reply in ranking.replies])
    table: list[tuple[int, int, float, bool, float, int]] = []
    choice_share: list[float] = []
    at = 0
    for ranking in rankings:
        pairs = [(i, j, strength, False) for (i, j), strength in zip(ranking.pairs, ranking.strengths, strict=True)]
        pairs += [(i, j, 0.0, True) for i, j in ranking.ties] if ties else []
        chosen = {i: len(choice_share) + n for n, i in enumerate(dict.fromkeys(i for i, *_ in pairs))}
        choice_share += [1 / len(chosen)] * len(chosen)
        table += [(at + i, at + j, how, tied, 1 / len(pairs), chosen[i]) for i, j, how, tied in pairs]
        at += len(ranking.replies)
    names = ("better", "worse", "strength", "tied", "share", "choice")
    extra = {name: torch.tensor(column) for name, column in zip(names, zip(*table, strict=True), strict=True)}
    extra |= {"lengths": lengths, "choice_share": torch.tensor(choice_share)}
    return Batch(rows, rows, torch.zeros(rows.shape), extra=extra, tokens=int(lengths.sum()), divided=True)


def padded(rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids (B, T) int64 padded with 0 on the right, lengths (B,))."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    for into, row in zip(ids, rows, strict=True):
        into[: len(row)] = torch.from_numpy(row)
    return ids, lengths
