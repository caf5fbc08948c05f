"""Rankings as tensors: which prompts a step sees, and how they are cut into micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from llmctl.rm.data import Ranking
from llmctl.train.batch import Batch
from llmctl.train.order import Shuffle


class RankingSource:
    """The comparisons of each step: every one once an epoch, in an order that depends on the seed alone."""

    def __init__(self, rankings: Sequence[Ranking], prompts: int, micro_tokens: int, seed: int) -> None:
        self.rankings, self.prompts, self.micro_tokens = rankings, prompts, micro_tokens
        self.order = Shuffle(len(rankings), seed)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of update `step`."""
        drawn = [self.rankings[i] for _, i in self.order.take(step * self.prompts, self.prompts)]
        return [collate(part) for part in cuts(drawn, self.micro_tokens)]


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


def collate(rankings: Sequence[Ranking]) -> Batch:
    """All replies of `rankings`, one below the other, padded on the right to (B, T).

    `extra`: `lengths` (B,); of each ordered pair its rows `better` and `worse` (P,) and its weight `share` (P,), one
    over the number of pairs of its prompt, so that each prompt counts once however many replies it has.
    """
    rows, lengths = padded([reply for ranking in rankings for reply in ranking.replies])
    better, worse, share, at = [], [], [], 0
    for ranking in rankings:
        better += [at + i for i, _ in ranking.pairs]
        worse += [at + j for _, j in ranking.pairs]
        share += [1 / len(ranking.pairs)] * len(ranking.pairs)
        at += len(ranking.replies)
    extra = {"lengths": lengths, "better": torch.tensor(better), "worse": torch.tensor(worse)}
    extra["share"] = torch.tensor(share)
    return Batch(rows, rows, torch.zeros(rows.shape), extra=extra, tokens=int(lengths.sum()))


def padded(rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids (B, T) int64 padded with 0 on the right, lengths (B,))."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    for into, row in zip(ids, rows, strict=True):
        into[: len(row)] = torch.from_numpy(row)
    return ids, lengths
