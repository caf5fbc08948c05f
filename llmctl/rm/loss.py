"""Bradley-Terry over rankings: P(a is better than b) = sigmoid(score(a) - score(b)), each prompt counted once."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.train.batch import Batch
from llmctl.train.loss import Loss


def bradley_terry(better: Tensor, worse: Tensor) -> Tensor:
    """-log sigmoid(better - worse) of float32 scores (P,): 0.69 where they are equal (arXiv 2203.02155, eq. 1)."""
    return -F.logsigmoid(better.float() - worse.float())


def centering(better: Tensor, worse: Tensor) -> Tensor:
    """(better + worse)^2 of scores (P,): zero where a pair lies around zero (arXiv 2312.09244)."""
    return (better.float() + worse.float()).square()


@dataclass
class RankingLoss:
    """The mean over a prompt's ordered pairs, then over prompts: 9 replies are 36 pairs, but one opinion.

    InstructGPT (arXiv 2203.02155, section 3.5) keeps the pairs of a prompt in one batch for the same reason: spread
    over batches, each reply would be trained on many times an epoch, and the model overfits.
    """

    center: float = 0.0

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of a micro-batch as made by `batches.collate`, in units of prompts."""
        scores = model(batch.ids, batch.extra["lengths"])
        better, worse, share = scores[batch.extra["better"]], scores[batch.extra["worse"]], batch.extra["share"]
        each = bradley_terry(better, worse)
        if self.center:
            each = each + self.center * centering(better, worse)
        margin = (better - worse).detach()
        logs = {"accuracy": float((share * (margin > 0)).sum()), "margin": float((share * margin).sum())}
        return Loss((share * each).sum(), share.sum(), logs)
