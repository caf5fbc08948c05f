"""Packed replies: every token once, and for every method the loss and the gradient of replies that have a row each."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from llmctl.generate.engine import Sample
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer
from llmctl.native import logprobs as kernels
from llmctl.rl import policy
from llmctl.rl.collate import Rows, collate
from llmctl.rl.config import MethodSettings
from llmctl.rl.critic import ActorCritic
from llmctl.rl.head import logprobs, measured, turned
from llmctl.rl.methods import METHODS
from llmctl.rl.packs import Shape, packed, rows_for, shape_for, width_for
from llmctl.rl.policy import KlWeight, LikelihoodLoss, PolicyLoss, trained
from llmctl.rl.rewards import Rollout
from llmctl.train.batch import Batch
from llmctl.verify import problems

VOCAB, LONGEST = 97, 24
POLICY = [m for m in METHODS if m not in ("best-of-n", "dpo")]


def model(critic: bool = False, **changes: Any) -> Any:
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 2, "head_dim": 16, "mlp_width": 64, "context": 64}
    made = Transformer(ModelConfig(VOCAB, **(shape | changes)))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.2)  # nothing at zero, so that every path carries a gradient
    found = ActorCritic(made) if critic else made
    if critic:
        torch.nn.init.normal_(found.critic.value.weight)
    return found


def replies(count: int, method: MethodSettings) -> Rows:
    """Replies of all lengths, some of whose tokens were forced, some cut, with what any method may ask of them."""
    rng, item = random.Random(1), problems("sums", 1, 0, heldout=False)[0]
    found = []
    for i in range(count):
        n = rng.randint(1, LONGEST)
        forced = [j > 0 and rng.random() < 0.2 for j in range(n)]
        sample = Sample([rng.randrange(VOCAB) for _ in range(n)], forced, [-4.0 - rng.random() for _ in range(n)],
                        "length" if n == LONGEST or i == 3 else "stop", "")  # fmt: skip
        found.append(Rollout(item, [rng.randrange(VOCAB) for _ in range(1 + i % 5)], sample))
    rows = collate(found, method, LONGEST)
    noise = torch.Generator().manual_seed(2)

    def each() -> Tensor:
        return torch.randn(rows["ids"].shape, generator=noise)

    rows["advantages"] = torch.randn(len(found), 1, generator=noise) * rows.pop("reply")
    del rows["index"]
    if method.advantage == "gae":
        rows |= {"values": each(), "returns": each(), "advantages": each()}
    if method.beta:
        rows["reference"] = rows["sampled"] + 0.3 * each()
    if method.updates > 1:
        rows["old"] = rows["sampled"] + 0.3 * each()
    return rows


def unpacked(rows: Rows) -> Batch:
    """Each reply in a row of its own, padded."""
    part = {k: v for k, v in rows.items() if k != "lengths"}
    return Batch(part.pop("ids"), part.pop("targets"), part.pop("weights"), extra=part)


def plainly(model: Any, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
    """What `token_logprobs` should find, by autograd over all the logits."""
    logits = trained(model.logits(model(batch.ids, batch.positions, batch.segments)), batch)
    logp = torch.log_softmax(logits / temperature, -1)
    entropy = -(logp.exp() * logp).sum(-1).detach()
    return logp.gather(1, trained(batch.targets, batch)[:, None])[:, 0], entropy


def outcome(made: Any, loss: PolicyLoss, batches: list[Batch]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Total, count and logs summed over the batches, and the gradients."""
    made.zero_grad()
    sums: dict[str, float] = {}
    for batch in batches:
        found = loss(made, batch)
        found.total.backward()
        figures = {"total": float(found.total.detach()), "count": float(found.count), **found.logs}
        sums = {k: sums.get(k, 0.0) + v for k, v in figures.items()}
    return sums, {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", [*POLICY, "everything", "token-ratio"])
def test_a_packed_reply_counts_as_it_does_alone(name: str, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    switches = {
        "everything": {"ratio": "sequence", "beta": 0.1, "dual_clip": 3.0, "sampler_cap": 2.0, "mask_truncated": True},
        "token-ratio": {"updates": 2, "beta": 0.1, "kl": "k3-ratio", "normalise": "sum"},
    }
    method = MethodSettings.model_validate(switches.get(name, name))
    made, rows = model(critic=method.advantage == "gae"), replies(23, method)
    kind = LikelihoodLoss if name == "expert-iteration" else PolicyLoss
    loss = kind(method, 0.8, KlWeight(method.beta))
    found = outcome(made, loss, packed(rows, Shape(3, 64), full))
    monkeypatch.setattr(policy, "token_logprobs", plainly)
    expected = outcome(made, loss, [unpacked(rows)])
    assert found[0].keys() == expected[0].keys() and found[1].keys() == expected[1].keys()
    # The means that are logged are of each batch by its own weights; where a reply's tokens share one, so do the means.
    exact = ("total", "count") if method.normalise in ("sum", "constant") else tuple(expected[0])
    for key in exact:
        assert found[0][key] == pytest.approx(expected[0][key], rel=1e-4, abs=1e-5), key
    for key, gradient in expected[1].items():
        rounding = 2e-6 * max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(found[1][key], gradient, atol=rounding, rtol=1e-4)
    assert expected[0]["total"] != 0


def test_every_token_is_in_one_place() -> None:
    rows = replies(40, MethodSettings(normalise="token"))
    for shape in (Shape(2, 32), Shape(5, 64), Shape(100, 96)):
        batches = packed(rows, shape, full=True)
        assert {tuple(b.ids.shape) for b in batches} == {(shape.rows, shape.width)}
        assert sum(b.tokens for b in batches) == int(rows["lengths"].sum())
        at = torch.cat([b.extra["at"].flatten() for b in batches])
        real = torch.cat([torch.arange(n) + i * rows["ids"].shape[1] for i, n in enumerate(rows["lengths"].tolist())])
        assert torch.equal(at[at >= 0].sort()[0], real)
        for b in batches:
            there = b.extra["at"] >= 0
            assert torch.equal(b.ids[there], rows["ids"].flatten()[b.extra["at"][there]])
            assert torch.equal(b.positions[there], b.extra["at"][there] % rows["ids"].shape[1])
            assert not b.weights[~there].any() and not b.extra["advantages"][~there].any()
        assert sum(float(b.extra["units"].sum()) for b in batches) == float(rows["units"].sum())


def test_shapes_leave_little_empty() -> None:
    for longest in (7, 60, 79, 100, 250, 300, 900, 5000):
        width = width_for(longest, 8192)
        assert width >= longest and width % 32 == 0
        assert width // longest >= 4 or width >= 1024
    assert width_for(30, 64) == 64  # no wider than a pass
    assert rows_for(16, 320, 2048) == 4 and rows_for(22, 256, 2048) == 8
    assert rows_for(3, 4096, 2048) == 1
    rows = replies(40, MethodSettings())
    shape = shape_for(rows, 10, 512)
    assert shape.width >= int(rows["lengths"].max())


@pytest.mark.parametrize("changes", [{}, {"softcap": 2.0, "family": "nanochat"}, {"tie_embeddings": True}])
def test_the_head_in_pieces_is_the_head(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmctl.rl.head.CHUNK", 5)
    made, rows = model(**changes), replies(9, MethodSettings())
    batch = unpacked(rows)
    outer = torch.randn(int(batch.trained.numel()))
    found = []
    for way in (policy.token_logprobs, plainly):
        made.zero_grad()
        logp, entropy = way(made, batch, 0.7)
        assert not entropy.requires_grad
        (logp * outer).sum().backward()
        found.append((logp.detach(), entropy, {n: p.grad.clone() for n, p in made.named_parameters()}))
    torch.testing.assert_close(found[0][:2], found[1][:2])
    for name, gradient in found[1][2].items():
        torch.testing.assert_close(found[0][2][name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not kernels.suits(torch.bfloat16, torch.device("cpu")), reason="no kernels here")
@pytest.mark.parametrize(("cap", "width"), [(0.0, VOCAB), (5.0, 64)])
def test_the_kernels_are_the_plain_way(cap: float, width: int) -> None:
    torch.manual_seed(0)
    logits, targets, outer = (3 * torch.randn(7, width)).bfloat16(), torch.randint(width, (7,)), torch.randn(7)
    expected, found = (way(logits, targets, cap, 0.7) for way in (measured, kernels.measured))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    one, two = logits.clone(), logits.clone()
    turned(one, targets, outer, expected[2], cap, 0.7)
    kernels.turned(two, targets, outer, found[2], cap, 0.7)
    torch.testing.assert_close(two, one, atol=1e-5, rtol=8e-3)  # the last bit of a bfloat16


def test_no_position_is_no_harm() -> None:
    made = model()
    logp, entropy = logprobs(made, torch.zeros(0, 32, requires_grad=True), torch.zeros(0, dtype=torch.int64), 1.0)
    logp.sum().backward()
    assert len(logp) == len(entropy) == 0 and not made.head.grad.any()
