"""The losses that the training loop calls: the policy's, with its penalty and its critic, and likelihood's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.rl.config import MethodSettings
from llmctl.rl.head import logprobs
from llmctl.rl.losses import (
    adapted,
    clipped_surrogate,
    k1,
    k3,
    kl_penalty,
    sampler_weight,
    sequence_logp,
    unclipped_surrogate,
    value_loss,
)  # fmt: skip
from llmctl.train.batch import Batch
from llmctl.train.loss import Loss


def token_logprobs(model: Any, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (N,) of the batch's targets at its N trained positions, in nats, float32.

    At the temperature that was sampled at: otherwise the ratio to the sampler would not be 1 (TRL and PPO do the same).
    """
    hidden = trained(model(batch.ids, batch.positions, batch.segments), batch)
    return logprobs(model, hidden, trained(batch.targets, batch), temperature)


def trained(x: Tensor, batch: Batch) -> Tensor:
    """(B, T, ...) to (N, ...): the trained positions."""
    flat = x.flatten(0, 1)
    return flat if batch.trained is None else flat.index_select(0, batch.trained)


def rows_of(batch: Batch) -> Tensor:
    """(N,) int64: whose each trained position is: the reply `extra["row"]` says, else its row."""
    if "row" in batch.extra:
        return trained(batch.extra["row"], batch)
    rows = torch.arange(len(batch.ids), device=batch.ids.device)[:, None].expand(batch.ids.shape)
    return trained(rows, batch)


@dataclass
class KlWeight:
    """The weight of the KL penalty, and the controller that moves it where there is a `target`."""

    value: float
    target: float = 0.0
    horizon: float = 1.0

    def see(self, kl: float, replies: int) -> None:
        """Take in the mean KL of so many new replies, in nats a reply."""
        if self.target:
            self.value = adapted(self.value, kl, self.target, replies, self.horizon)


@dataclass
class PolicyLoss:
    """The loss of a step. `batch.extra` has, (B, T) each unless said otherwise: `advantages`; `sampled`, the sampler's
    log-probabilities; `old`, the training model's when the roll-outs were made (absent: they are today's); `reference`,
    the reference model's (absent: no penalty); `values` and `returns` of a critic; and `units` (B,), what each row adds
    to the denominator; `row`, whose each token is, where a row has several replies.
    """

    method: MethodSettings
    temperature: float
    weight: KlWeight
    sums: dict[str, float] = field(default_factory=dict)  # of what was seen since `means` was asked, and the units
    remember: Callable[[Batch, Tensor], None] | None = None  # is told today's log-probabilities at the first update

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The surrogate and, where they are, the KL penalty and the critic's loss."""
        logp, entropy = token_logprobs(model, batch, self.temperature)
        extra = {k: trained(v, batch) for k, v in batch.extra.items() if v.ndim == 2}
        old = extra.get("old", logp.detach())  # the first update of a roll-out: the ratio is 1, its gradient logp's
        if self.remember is not None and "old" not in extra:
            self.remember(batch, old)
        loss, seen = self.surrogate(logp, old, extra, batch)
        behind = old - extra["sampled"]
        seen |= {"entropy": entropy, "sampler_k1": -behind, "sampler_gap": behind.abs()}
        if "reference" in extra:
            seen |= {"kl_k1": k1(logp, extra["reference"]), "kl": k3(logp, extra["reference"])}
            if self.method.kl_in == "loss":
                loss = loss + self.weight.value * kl_penalty(self.method.kl, logp, extra["reference"], old)
        if "returns" in extra:
            values = trained(model.critic(batch.ids, batch.positions, batch.segments), batch)
            critic = value_loss(values, extra["values"], extra["returns"], self.method.value_clip)
            seen |= {"value_loss": critic}
            loss = loss + self.method.value_coef * critic
        return self.summed(loss, seen, batch)

    def surrogate(
        self, logp: Tensor, old: Tensor, extra: dict[str, Tensor], batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The policy's part of the loss of each token, and what is seen of the clip."""
        m, advantages = self.method, extra["advantages"]
        if m.ratio == "sequence":
            logp = sequence_logp(logp, old, rows_of(batch))
        if m.clip:
            loss, low, high = clipped_surrogate(logp, old, advantages, m.clip_low, m.clip_high, m.dual_clip)
        else:
            loss = unclipped_surrogate(logp, old, advantages)
            low = high = torch.zeros_like(loss, dtype=torch.bool)
        if m.sampler_cap:
            loss = loss * sampler_weight(old, extra["sampled"], m.sampler_cap)
        return loss, {"clipped": (low | high).float(), "clipped_low": low.float(), "clipped_high": high.float()}

    def summed(self, loss: Tensor, seen: dict[str, Tensor], batch: Batch) -> Loss:
        """The weighted sum that the loop divides by the units, with the means of what is seen."""
        weights, count = trained(batch.weights, batch), batch.extra["units"].sum()
        # Means over the trained tokens with the loss's own weights; times the count, since the loop divides by it.
        share = weights / weights.sum()
        means = torch.stack([value.detach() for value in seen.values()]) @ share
        *found, units = torch.cat((means, count[None])).tolist()  # one wait for a GPU, not one a figure
        logs = {name: value * units for name, value in zip(seen, found, strict=True)}
        self.sums = {k: self.sums.get(k, 0.0) + v for k, v in {**logs, "units": units}.items()}
        return Loss((loss * weights).sum(), count, logs)

    def means(self) -> dict[str, float]:
        """The means of what was seen since the last time."""
        units, sums, self.sums = self.sums.pop("units", 0.0), self.sums, {}
        return {name: value / units for name, value in sums.items()} if units else {}


class LikelihoodLoss(PolicyLoss):
    """Sft's loss on replies that were kept (STaR, arXiv 2203.14465; ReST-EM, arXiv 2312.06585): -log p a token."""

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """At temperature 1, whatever the replies were sampled at: that is how the model will be used."""
        logp, entropy = token_logprobs(model, batch, 1.0)
        return self.summed(-logp, {"entropy": entropy}, batch)
