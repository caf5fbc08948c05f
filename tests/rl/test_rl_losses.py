"""The losses against numbers worked by hand, against autograd of the plain formula, and against finite sums."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.rl.config import MethodSettings
from llmctl.rl.losses import (
    adapted,
    clipped_surrogate,
    dpo,
    k1,
    k2,
    k3,
    kl_penalty,
    sampler_weight,
    sequence_logp,
    sequence_nll,
    unclipped_surrogate,
    value_loss,
)
from llmctl.rl.policy import KlWeight, LikelihoodLoss, PolicyLoss, token_logprobs
from llmctl.train.batch import Batch
from llmctl.train.loss import lm_loss

VOCAB = 5


class Table(nn.Module):
    """A model whose logits are a row of a table a position."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, VOCAB, generator=torch.Generator().manual_seed(1)))
        self.guess = nn.Parameter(torch.zeros(length))
        self.head = torch.eye(VOCAB)

    def forward(self, ids: Tensor, positions: Any, segments: Any) -> Tensor:
        return self.table[: ids.shape[1]].expand(len(ids), -1, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.head.T

    def critic(self, ids: Tensor, positions: Any, segments: Any) -> Tensor:
        return self.guess[: ids.shape[1]].expand(len(ids), -1)


def batch(advantages: list[list[float]], weights: list[list[float]], **extra: Tensor) -> Batch:
    a, w = torch.tensor(advantages), torch.tensor(weights)
    ids = torch.arange(a.numel()).view(a.shape) % VOCAB
    return Batch(ids, (ids + 1) % VOCAB, w, extra={"advantages": a, "sampled": torch.zeros(a.shape),
                 "units": torch.ones(len(a)), **extra})  # fmt: skip


def loss(temperature: float = 1.0, **method: Any) -> PolicyLoss:
    found = MethodSettings.model_validate(method)
    return PolicyLoss(found, temperature, KlWeight(found.beta))


def test_clipped_surrogate_by_hand() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 3.0])
    found, low, high = clipped_surrogate(ratio.log(), torch.zeros(5), advantages, 0.2, 0.3)
    # Up and good: bounded at 1.3. Up and bad: free. Down and good: free. Down and bad: bounded at 0.8. Inside: free.
    assert found.tolist() == pytest.approx([-2.6, 3.0, -1.0, 1.6, -3.3])
    assert low.tolist() == [False, False, False, True, False]
    assert high.tolist() == [True, False, False, False, False]


def test_dual_clip_bounds_a_bad_token_that_became_likelier() -> None:
    ratio, advantages = torch.tensor([5.0, 2.0, 5.0]), torch.tensor([-1.0, -1.0, 1.0])
    found, _, _ = clipped_surrogate(ratio.log(), torch.zeros(3), advantages, 0.2, 0.2, dual=3.0)
    assert found.tolist() == pytest.approx([3.0, 2.0, -1.2])


def test_unclipped_surrogate_has_reinforces_gradient() -> None:
    logp = torch.tensor([-1.0, -2.0], requires_grad=True)
    unclipped_surrogate(logp, logp.detach(), torch.tensor([2.0, -3.0])).sum().backward()
    assert logp.grad is not None and logp.grad.tolist() == [-2.0, 3.0]


def test_the_ratio_of_a_sequence_is_the_geometric_mean_and_each_token_keeps_its_gradient() -> None:
    logp = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    old, rows = torch.tensor([-1.3, -1.9, -0.5]), torch.tensor([0, 0, 1])
    found = (sequence_logp(logp, old, rows) - old).exp()
    assert found.tolist() == pytest.approx([math.exp((0.3 - 0.1) / 2)] * 2 + [1.0])
    found.sum().backward()
    assert logp.grad is not None and logp.grad.tolist() == pytest.approx(found.tolist())


def test_sampler_weight_is_capped() -> None:
    found = sampler_weight(torch.tensor([0.5, -1.0]).log().nan_to_num(-1.0), torch.tensor([0.1, 0.1]).log(), 2.0)
    assert found.tolist() == pytest.approx([2.0, 2.0])
    assert sampler_weight(torch.tensor([0.1]).log(), torch.tensor([0.2]).log(), 2.0).tolist() == pytest.approx([0.5])


def test_kl_estimators() -> None:
    logp, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert float(k1(logp, reference)) == pytest.approx(math.log(2))
    assert float(k2(logp, reference)) == pytest.approx(math.log(2) ** 2 / 2)
    assert float(k3(logp, reference)) == pytest.approx(0.5 - 1 + math.log(2))


def test_k1_and_k3_have_the_kl_as_their_mean_and_k3_is_never_negative() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    exact = (p * (p / q).log()).sum()
    assert (p * k1(p.log(), q.log())).sum() == pytest.approx(float(exact))
    assert (p * k3(p.log(), q.log())).sum() == pytest.approx(float(exact), abs=1e-6)
    assert k3(torch.randn(1000), torch.randn(1000)).min() >= 0


@pytest.mark.parametrize(("kind", "right"), [("k2", True), ("k3+", True), ("k3-ratio", True), ("k3", False)])
def test_whose_gradient_in_the_loss_is_that_of_the_kl(kind: str, right: bool) -> None:
    logits, q = torch.tensor([1.0, 0.0, -1.0], requires_grad=True), torch.tensor([0.3, 0.3, 0.4])
    p = logits.softmax(-1)
    (exact,) = torch.autograd.grad((p * (p / q).log()).sum(), logits)
    logp = logits.log_softmax(-1)
    (found,) = torch.autograd.grad((logp.exp().detach() * kl_penalty(kind, logp, q.log(), logp.detach())).sum(), logits)
    assert torch.allclose(found, exact, atol=1e-6) == right


def test_k3_plus_has_k3s_value() -> None:
    logp, reference = torch.randn(9), torch.randn(9)
    assert torch.allclose(kl_penalty("k3+", logp, reference, logp), k3(logp, reference))


def test_value_loss_by_hand() -> None:
    # Moved by 0.5 where 0.2 is allowed. Return 1: (0.5 - 1)^2 = .25 < (0.2 - 1)^2 = .64. Return 0: .25 > .04.
    found = value_loss(torch.tensor([0.5, 0.5, 0.1]), torch.zeros(3), torch.tensor([1.0, 0.0, 1.0]), 0.2)
    assert found.tolist() == pytest.approx([0.32, 0.125, 0.405])


def test_dpo_by_hand() -> None:
    found, margin = dpo(*(torch.tensor([x]) for x in (-1.0, -3.0, -2.0, -2.5)), beta=0.2)
    assert float(margin) == pytest.approx(0.2 * (1.0 + 0.5))
    assert float(found) == pytest.approx(math.log1p(math.exp(-0.3)))
    smoothed, _ = dpo(*(torch.tensor([x]) for x in (-1.0, -3.0, -2.0, -2.5)), beta=0.2, smoothing=0.1)
    assert float(smoothed) == pytest.approx(0.9 * math.log1p(math.exp(-0.3)) + 0.1 * math.log1p(math.exp(0.3)))


def test_likelihood_of_a_whole_reply_by_hand() -> None:
    assert sequence_nll(torch.tensor([-6.0, -2.0]), torch.tensor([4.0, 1.0])).tolist() == [1.5, 2.0]


def test_the_controller_moves_by_at_most_a_fifth_in_a_horizon() -> None:
    assert adapted(0.1, kl=12.0, target=6.0, replies=1000, horizon=1000) == pytest.approx(0.12)
    assert adapted(0.1, kl=6.6, target=6.0, replies=500, horizon=1000) == pytest.approx(0.1 * 1.05)
    assert adapted(0.1, kl=0.0, target=6.0, replies=1000, horizon=1000) == pytest.approx(0.08)
    assert adapted(0.1, kl=6.0, target=6.0, replies=1000, horizon=1000) == 0.1
    fixed = KlWeight(0.1)
    fixed.see(100.0, 64)
    assert fixed.value == 0.1


@pytest.mark.parametrize("method", [{}, {"clip": False}, {"ratio": "sequence"}])
def test_on_policy_the_gradient_is_that_of_reinforce(method: dict) -> None:
    b = batch([[1.0, -2.0, 0.5]], [[0.0, 1.0, 0.5]])
    model, plain = Table(3), Table(3)
    loss(**method)(model, b).total.backward()
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
    found = loss(beta=0.5)(model, b)
    expected = math.expm1(-0.1) + 0.1
    assert float(found.total.detach()) == pytest.approx(0.5 * expected, rel=1e-3)
    assert found.logs["kl"] == pytest.approx(expected, rel=1e-3)
    assert found.logs["kl_k1"] == pytest.approx(0.1, rel=1e-3)
    assert found.logs["sampler_gap"] == pytest.approx(0.1, rel=1e-3)
    assert found.logs["sampler_k1"] == pytest.approx(-0.1, rel=1e-3)
    assert float(loss(beta=0.5, kl="k1", kl_in="reward")(model, b).total.detach()) == pytest.approx(0.0, abs=1e-7)


def test_the_critic_is_trained_beside_the_policy() -> None:
    b = batch([[0.0, 0.0]], [[0.0, 1.0]], values=torch.zeros(1, 2), returns=torch.tensor([[9.0, 2.0]]))
    model = Table(2)
    found = loss(name="ppo", value_coef=0.1)(model, b)
    assert found.logs["value_loss"] == pytest.approx(2.0)
    found.total.backward()
    assert model.guess.grad is not None and model.guess.grad.tolist() == pytest.approx([0.0, -0.2])


def test_logs_are_sums_over_the_units_that_the_loop_divides_by() -> None:
    rows = batch([[1.0, 1.0]] * 3, [[0.5, 0.5]] * 3)
    found = loss()(Table(2), rows)
    assert float(found.count) == 3
    assert found.logs["entropy"] / 3 == pytest.approx(float(token_logprobs(Table(2), rows, 1.0)[1].mean()), rel=1e-5)


def test_likelihood_is_the_loss_of_sft() -> None:
    b = batch([[0.0] * 3] * 2, [[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], units=torch.tensor([2.0, 1.0]))
    method = MethodSettings.model_validate("expert-iteration")
    found, expected = LikelihoodLoss(method, 0.5, KlWeight(0.0))(Table(3), b), lm_loss(Table(3), b)
    assert float(found.total.detach()) == pytest.approx(float(expected.total.detach()), rel=1e-5)
    assert float(found.count) == float(expected.count)
    assert F.cross_entropy(Table(3).table[2][None], b.targets[1, 2][None]) > 0
