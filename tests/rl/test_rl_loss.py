"""The policy loss against numbers worked by hand, against autograd of the plain formula, and against finite sums."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llmctl.rl.loss import PolicyLoss, clipped_surrogate, k1, k3, token_logprobs
from llmctl.train.batch import Batch

VOCAB = 5


class Table(nn.Module):
    """A model whose logits are a row of a table a position."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, VOCAB, generator=torch.Generator().manual_seed(1)))

    def forward(self, ids: Tensor, positions: Any, segments: Any) -> Tensor:
        return self.table[: ids.shape[1]].expand(len(ids), -1, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden


def batch(advantages: list[list[float]], weights: list[list[float]], **extra: Tensor) -> Batch:
    a, w = torch.tensor(advantages), torch.tensor(weights)
    ids = torch.arange(a.numel()).view(a.shape) % VOCAB
    return Batch(ids, (ids + 1) % VOCAB, w, extra={"advantages": a, "sampled": torch.zeros(a.shape),
                 "units": torch.ones(len(a)), **extra})  # fmt: skip


def test_clipped_surrogate_by_hand() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 3.0])
    loss, clipped = clipped_surrogate(ratio.log(), torch.zeros(5), advantages, 0.2, 0.3)
    # Up and good: bounded at 1.3. Up and bad: free. Down and good: free. Down and bad: bounded at 0.8. Inside: free.
    assert loss.tolist() == pytest.approx([-2.6, 3.0, -1.0, 1.6, -3.3])
    assert clipped.tolist() == [True, False, False, True, False]


def test_kl_estimators() -> None:
    logp, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert float(k1(logp, reference)) == pytest.approx(math.log(2))
    assert float(k3(logp, reference)) == pytest.approx(0.5 - 1 + math.log(2))


def test_both_kl_estimators_have_the_kl_as_their_mean_and_k3_is_never_negative() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    exact = (p * (p / q).log()).sum()
    assert (p * k1(p.log(), q.log())).sum() == pytest.approx(float(exact))
    assert (p * k3(p.log(), q.log())).sum() == pytest.approx(float(exact), abs=1e-6)
    assert k3(torch.randn(1000), torch.randn(1000)).min() >= 0


def test_on_policy_the_gradient_is_that_of_reinforce() -> None:
    b = batch([[1.0, -2.0, 0.5]], [[0.0, 1.0, 0.5]])
    model, plain = Table(3), Table(3)
    PolicyLoss(0.2, 0.2, 0.0, temperature=1.0)(model, b).total.backward()
    logp = plain.table.log_softmax(-1).gather(1, b.targets[0][:, None])[:, 0]
    (-(logp * b.extra["advantages"][0] * b.weights[0]).sum()).backward()
    assert torch.allclose(model.table.grad, plain.table.grad, atol=1e-6)
    assert model.table.grad[0].abs().max() == 0  # weight 0: a prompt, or what a tool said


def test_temperature_and_entropy() -> None:
    b, model = batch([[1.0, 1.0]], [[1.0, 1.0]]), Table(2)
    logp, entropy = token_logprobs(model, b, 2.0)
    p = (model.table / 2).softmax(-1)
    assert torch.allclose(logp.exp(), p.gather(1, b.targets[0][:, None])[:, 0], atol=1e-6)
    assert torch.allclose(entropy, -(p * p.log()).sum(-1), atol=1e-6)


def test_penalty_and_logs() -> None:
    model = Table(2)
    logp, _ = token_logprobs(model, batch([[0.0, 0.0]], [[1.0, 1.0]]), 1.0)
    off = logp.detach()[None] - 0.1
    b = batch([[0.0, 0.0]], [[0.5, 0.5]], reference=off, sampled=off)
    found = PolicyLoss(0.2, 0.2, 0.5, 1.0)(model, b)
    expected = math.expm1(-0.1) + 0.1
    assert float(found.total.detach()) == pytest.approx(0.5 * expected, rel=1e-3)
    assert found.logs["kl"] == pytest.approx(expected, rel=1e-3)
    assert found.logs["kl_k1"] == pytest.approx(0.1, rel=1e-3)
    assert found.logs["sampler_gap"] == pytest.approx(0.1, rel=1e-3)
    assert found.logs["sampler_k1"] == pytest.approx(-0.1, rel=1e-3)


def test_logs_are_sums_over_the_units_that_the_loop_divides_by() -> None:
    rows = batch([[1.0, 1.0]] * 3, [[0.5, 0.5]] * 3)
    found = PolicyLoss(0.2, 0.2, 0.0, 1.0)(Table(2), rows)
    assert float(found.count) == 3
    assert found.logs["entropy"] / 3 == pytest.approx(found_entropy(rows), rel=1e-5)


def found_entropy(b: Batch) -> float:
    return float(token_logprobs(Table(2), b, 1.0)[1].mean())
