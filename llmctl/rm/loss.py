"""The losses of reward models, as pure functions of margins: how far a better reply's score lies above a worse one's.

All of them compute in float32: bfloat16 keeps 8 bits of a score, and many pairs would be ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.rm.config import LossSettings
from llmctl.train.batch import Batch
from llmctl.train.loss import Loss


def bradley_terry(margins: Tensor) -> Tensor:
    """-log sigmoid(margin) of margins (P,): 0.69 where scores are equal (arXiv 2203.02155, eq. 1; Bradley and Terry
    1952).
    """
    return -F.logsigmoid(margins.float())


def davidson(margins: Tensor, tied: Tensor, nu: float) -> Tensor:
    """Bradley-Terry with a third outcome, the tie: margins (P,), `tied` (P,) bool -> (P,).

    P(better) : P(tie) : P(worse) = e^(m/2) : nu : e^(-m/2), so a tie is likeliest at m = 0, nu / (2 + nu) there
    (Davidson 1970, JASA 65:317). Of the models with ties it is the one in which P(better) / P(worse) is still e^m, as
    Luce's axiom wants: sigmoid(margin) keeps its meaning. Rao and Kupper's (1967) shifts it.
    """
    half = margins.float() / 2
    whole = torch.logsumexp(torch.stack([half, -half, torch.full_like(half, log(nu))]), 0)
    return whole - torch.where(tied, log(nu), half)


def plackett_luce(margins: Tensor, choice: Tensor) -> Tensor:
    """A ranking as choices, each of the best of what is left: margins (P,), `choice` (P,) int64 -> (choices,).

    The pairs with one number in `choice`, from 0, share their better reply; their worse ones are what it was chosen
    from. -log(e^better / (e^better + sum of e^worse)) is log(1 + sum of e^-margin), with one worse reply Bradley-Terry
    (Plackett 1975, Applied Statistics 24:193; ListMLE, Xia et al. 2008). A reply tied with the better one is not among
    those it was chosen from.
    """
    count = int(choice.max()) + 1 if len(choice) else 0
    mine = choice[None] == torch.arange(count, device=choice.device)[:, None]
    left = torch.where(mine, -margins.float(), -torch.inf)
    return torch.logsumexp(F.pad(left, (1, 0)), 1)


def centering(better: Tensor, worse: Tensor) -> Tensor:
    """(better + worse)^2 of scores (P,): zero where a pair lies around zero (arXiv 2312.09244)."""
    return (better.float() + worse.float()).square()


@dataclass
class RankingLoss:
    """The mean over a prompt's pairs or choices, then over prompts: 9 replies are 36 pairs, but one opinion.

    InstructGPT (arXiv 2203.02155, section 3.5) keeps the pairs of a prompt in one batch for the same reason: spread
    over batches, each reply would be trained on many times an epoch, and the model overfits. Llama 2's margin (arXiv
    2307.09288, eq. 2) is taken off the margin of every pair, in the proportion in which one reply is better.
    """

    settings: LossSettings

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of a micro-batch as made by `batches.collate`, in units of prompts."""
        of, scores = batch.extra, model(batch.ids, batch.extra["lengths"])
        better, worse, share, tied = scores[of["better"]], scores[of["worse"]], of["share"], of["tied"]
        margins = better - worse
        total = self._total(margins - self.settings.margin * of["strength"], of)
        if self.settings.center:
            total = total + self.settings.center * (share * centering(better, worse)).sum()
        strict = torch.where(tied, 0.0, share)
        prompts = share.sum()
        # Over prompts that have a preference, in the same unit.
        strict = strict * (prompts / strict.sum()) if float(strict.sum()) else strict
        found = margins.detach()
        logs = {"accuracy": float((strict * (found > 0)).sum()), "margin": float((strict * found).sum())}
        return Loss(total, prompts, logs)

    def _total(self, margins: Tensor, of: dict[str, Tensor]) -> Tensor:
        """The summed loss of the micro-batch's prompts."""
        if self.settings.form == "plackett-luce":
            return (of["choice_share"] * plackett_luce(margins, of["choice"])).sum()
        each = davidson(margins, of["tied"], self.settings.ties) if self.settings.ties else bradley_terry(margins)
        return (of["share"] * each).sum()
