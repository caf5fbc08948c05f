"""The losses as pure functions of log-probabilities and values, each with its paper. All tensors are (N,) unless said
otherwise: the trained tokens of a batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# |log ratio| beyond this is a broken sampler, and its exponential would be the whole step (verl's bound).
FAR = 20.0


def clipped_surrogate(
    logp: Tensor, old: Tensor, advantages: Tensor, low: float, high: float, dual: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """PPO (arXiv 1707.06347, equation 7) with separate bounds (DAPO's clip-higher, arXiv 2503.14476).

    -min(ratio * A, clip(ratio, 1 - low, 1 + high) * A) a token, with ratio = exp(logp - old); and where the lower and
    where the upper bound was the smaller one, so that the token has no gradient. `dual` above 0 bounds the loss of a
    token with A < 0 by -dual * A (arXiv 1912.09729, equation 5).
    """
    ratio = (logp - old).clamp(-FAR, FAR).exp()
    free, bounded = ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages
    loss, clipped = -torch.minimum(free, bounded), bounded < free
    if dual:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual * advantages), loss)
    return loss, clipped & (advantages < 0), clipped & (advantages > 0)


def unclipped_surrogate(logp: Tensor, old: Tensor, advantages: Tensor) -> Tensor:
    """-ratio * A: REINFORCE (Williams 1992), with importance weights where the roll-outs are older than the weights."""
    return -(logp - old).clamp(-FAR, FAR).exp() * advantages


def sequence_logp(logp: Tensor, old: Tensor, rows: Tensor) -> Tensor:
    """GSPO (arXiv 2507.18071, equations 7 and 11 to 13): a log-probability whose ratio to `old` is that of the whole
    reply, the geometric mean over its tokens, while the gradient of each token stays its own.

    `rows` (N,) int64 says whose reply a token is of.
    """
    count = int(rows.max()) + 1 if len(rows) else 1
    difference = (logp - old).detach()
    total = torch.zeros(count, device=logp.device).index_add(0, rows, difference)
    tokens = torch.zeros(count, device=logp.device).index_add(0, rows, torch.ones_like(difference))
    return old + (total / tokens.clamp(min=1))[rows] + logp - logp.detach()


def sampler_weight(trainer: Tensor, sampler: Tensor, cap: float) -> Tensor:
    """Truncated importance sampling (TIS, fengyao.notion.site/off-policy-rl): min(p trainer / p sampler, cap).

    It is a weight, without a gradient.
    """
    return (trainer - sampler).detach().clamp(-FAR, FAR).exp().clamp(max=cap)


def k1(logp: Tensor, reference: Tensor) -> Tensor:
    """log(p / q): KL(p || q) from samples of p without bias, with high variance (joschu.net/blog/kl-approx)."""
    return logp - reference


def k2(logp: Tensor, reference: Tensor) -> Tensor:
    """log(p / q)^2 / 2: biased, but its gradient over samples of p is the gradient of the KL (same source; verl)."""
    return (logp - reference).square() / 2


def k3(logp: Tensor, reference: Tensor) -> Tensor:
    """q/p - 1 - log(q/p): unbiased too, never negative, and of low variance; the one in GRPO's loss (same source)."""
    d = (reference - logp).clamp(-FAR, FAR)
    return torch.expm1(d) - d


def kl_penalty(kind: str, logp: Tensor, reference: Tensor, old: Tensor) -> Tensor:
    """The penalty of a token by the estimator's name.

    "k3+" is the value of k3 with k2's gradient (verl's straight-through form); "k3-ratio" k3 times the importance ratio
    to `old`, whose gradient is the KL's (DeepSeek-V3.2, arXiv 2512.02556, section 3.1).
    """
    if kind == "k3+":
        through = k2(logp, reference)
        return through - through.detach() + k3(logp, reference).detach()
    if kind == "k3-ratio":
        return (logp - old).clamp(-FAR, FAR).exp() * k3(logp, reference)
    return {"k1": k1, "k2": k2, "k3": k3}[kind](logp, reference)


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """PPO's critic (the code of arXiv 1909.08593): max((V - R)^2, (V_c - R)^2) / 2, V_c within `clip` of the old V."""
    bounded = old + (values - old).clamp(-clip, clip)
    return torch.maximum((values - returns).square(), (bounded - returns).square()) / 2


def dpo(
    chosen: Tensor, rejected: Tensor, chosen_ref: Tensor, rejected_ref: Tensor, beta: float, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """DPO (arXiv 2305.18290, equation 7): (-log sigmoid(margin), margin), (P,) each.

    From the log-probabilities of whole replies under policy and reference; margin = beta * ((chosen - chosen_ref) -
    (rejected - rejected_ref)). With `smoothing`, the loss of a comparison that is the wrong way round with that chance
    (conservative DPO, ericmitchell.ai/cdpo.pdf).
    """
    margin = beta * ((chosen - chosen_ref) - (rejected - rejected_ref))
    loss = -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)
    return loss, margin


def sequence_nll(logp: Tensor, tokens: Tensor) -> Tensor:
    """-log p a token of whole replies, (P,), from their log-probabilities and lengths: what Iterative RPO (arXiv
    2404.19733, equation 1; TRL's `rpo_alpha`) adds to DPO's loss for the better reply of each pair. DPO asks only that
    the better one gain on the worse one, which it also does where both become less likely.
    """
    return -logp / tokens


def adapted(beta: float, kl: float, target: float, replies: int, horizon: float) -> float:
    """The adaptive KL controller (arXiv 1909.08593, section 2.2): beta after `replies` more replies with a mean KL of
    `kl` nats each; it moves by at most a fifth in `horizon` replies.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * replies / horizon)
