"""PPO's critic: that it, too, goes through the kernels, compiled or not, and is the model that it is without them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from llmctl.model import fast
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer
from llmctl.rl.config import MethodSettings
from llmctl.rl.critic import ActorCritic
from llmctl.rl.policy import KlWeight, PolicyLoss
from llmctl.train.batch import Batch
from llmctl.train.compiling import wanted
from llmctl.train.settings import TrainSettings

VOCAB = 97


def model() -> ActorCritic:
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "mlp_width": 128, "context": 64}
    made = ActorCritic(Transformer(ModelConfig(VOCAB, **shape)))
    torch.nn.init.normal_(made.critic.value.weight, std=0.02)
    return made


def batch() -> Batch:
    """Two replies a row, with all that PPO's loss asks for."""
    ids = torch.randint(VOCAB, (3, 32))
    segments = (torch.arange(32) >= 20).long().expand(3, 32).contiguous()
    positions = torch.where(segments == 1, torch.arange(32) - 20, torch.arange(32))
    extra = {name: torch.randn(3, 32) for name in ("advantages", "values", "returns")}
    extra |= {"old": torch.full((3, 32), -4.6), "sampled": torch.full((3, 32), -4.6), "units": torch.full((3,), 32.0)}
    return Batch(ids, ids.roll(-1, 1), torch.ones(3, 32), positions, segments, extra=extra)


def gradients(made: ActorCritic, b: Batch, bf16: bool) -> dict[str, Tensor]:
    made.zero_grad()
    loss = PolicyLoss(MethodSettings(name="ppo", value_coef=1.0, value_clip=100.0), 1.0, KlWeight(0.0))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        found = loss(made, b)
    (found.total / found.count).backward()
    return {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}


def apart(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """How far each gradient is from the expected one, as a part of that one's length."""
    return {n: float((found[n] - g).norm() / g.norm()) for n, g in expected.items() if float(g.norm())}


def test_policy_and_critic_learn_through_the_kernels_what_they_learn_without(monkeypatch: pytest.MonkeyPatch) -> None:
    made, b = model(), batch()
    if not fast.covers(made):
        pytest.skip("no kernels here")
    exact, calls = gradients(made, b, bf16=False), []
    forward = fast.forward
    monkeypatch.setattr(fast, "forward", lambda model, *rest: calls.append(model) or forward(model, *rest))
    found = apart(gradients(made, b, bf16=True), exact)
    assert calls == [made.policy, made.critic.backbone]
    monkeypatch.setattr(fast, "suits", lambda _: False)
    plain = apart(gradients(made, b, bf16=True), exact)
    assert len(calls) == 2 and found.keys() == plain.keys()
    assert any(n.startswith("critic.backbone") for n in found) and any(n.startswith("policy") for n in found)
    for name, error in found.items():
        assert error < 2 * plain[name] + 2e-3, name  # bfloat16's rounding either way


def test_where_there_are_kernels_an_actor_with_its_critic_is_not_compiled() -> None:
    made = model()
    if not fast.covers(made):
        pytest.skip("no kernels here")

    class Long:
        fixed_shape, tokens_a_step = True, 10**15

    assert not wanted(made, Long(), TrainSettings(steps=10, precision="bf16"))
    assert wanted(made, Long(), TrainSettings(steps=10, precision="fp32"))
