"""The losses of policy gradients as pure functions of log-probabilities, and the one that the training loop calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.train.batch import Batch
from llmctl.train.loss import Loss

# |log ratio| beyond this is a broken sampler, and its exponential would be the whole step (verl's bound).
_FAR = 20.0
# Positions a piece of the head and softmax: bounds the memory of the logits.
_CHUNK = 2048


def clipped_surrogate(logp: Tensor, old: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """PPO (arXiv 1707.06347, equation 7) with separate bounds (DAPO's clip-higher, arXiv 2503.14476).

    -min(ratio * A, clip(ratio, 1 - low, 1 + high) * A) a token, with ratio = exp(logp - old); and whether the clip was
    the smaller one, so that the token has no gradient. All tensors (N,).
    """
    ratio = (logp - old).clamp(-_FAR, _FAR).exp()
    free, bounded = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(free, bounded), bounded < free


def k1(logp: Tensor, reference: Tensor) -> Tensor:
    """log(p / q): KL(p || q) from samples of p without bias, with high variance (joschu.net/blog/kl-approx)."""
    return logp - reference


def k3(logp: Tensor, reference: Tensor) -> Tensor:
    """q/p - 1 - log(q/p): unbiased too, never negative, and of low variance; the one in GRPO's loss (same source)."""
    d = (reference - logp).clamp(-_FAR, _FAR)
    return torch.expm1(d) - d


def token_logprobs(model: Any, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (N,) of the batch's targets at its N trained positions, in nats, float32.

    At the temperature that was sampled at: otherwise the ratio to the sampler would not be 1 (TRL and PPO do the same).
    """
    hidden = trained(model(batch.ids, batch.positions, batch.segments), batch)
    targets = trained(batch.targets, batch)
    logps, entropies = [], []
    for h, t in zip(hidden.split(_CHUNK), targets.split(_CHUNK), strict=True):
        logp = torch.log_softmax(model.logits(h) / temperature, -1)
        logps.append(logp.gather(1, t[:, None])[:, 0])
        with torch.no_grad():
            entropies.append(-(logp.exp() * logp).sum(-1))
    return torch.cat(logps), torch.cat(entropies)


def trained(x: Tensor, batch: Batch) -> Tensor:
    """(B, T, ...) to (N, ...): the trained positions."""
    flat = x.flatten(0, 1)
    return flat if batch.trained is None else flat.index_select(0, batch.trained)


@dataclass
class PolicyLoss:
    """The loss of a step. `batch.extra` has, (B, T) each unless said otherwise: `advantages`; `sampled`, the sampler's
    log-probabilities; `old`, the training model's when the roll-outs were made (absent: they are today's); `reference`,
    the reference model's (absent: no penalty); and `units` (B,), what each row adds to the denominator.
    """

    clip_low: float
    clip_high: float
    beta: float
    temperature: float
    last: dict[str, float] = field(default_factory=dict)  # the means of the newest batch, for whoever watches

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The clipped surrogate and, where there is a reference, `beta` times the KL penalty."""
        logp, entropy = token_logprobs(model, batch, self.temperature)
        extra = {k: trained(v, batch) for k, v in batch.extra.items() if v.ndim == 2}
        weights = trained(batch.weights, batch)
        old = extra.get("old", logp.detach())  # one update a roll-out: the ratio is 1 and its gradient that of logp
        loss, clipped = clipped_surrogate(logp, old, extra["advantages"], self.clip_low, self.clip_high)
        behind = old - extra["sampled"]
        seen = {"entropy": entropy, "clipped": clipped.float(), "sampler_k1": -behind, "sampler_gap": behind.abs()}
        if "reference" in extra:
            penalty = k3(logp, extra["reference"])
            loss = loss + self.beta * penalty
            seen |= {"kl_k1": k1(logp, extra["reference"]), "kl": penalty}
        count = batch.extra["units"].sum()
        # Means over the trained tokens with the loss's own weights; times the count, since the loop divides by it.
        share = weights / weights.sum()
        self.last = {name: float((value.detach() * share).sum()) for name, value in seen.items()}
        return Loss((loss * weights).sum(), count, {name: value * float(count) for name, value in self.last.items()})
