"""Optimizers and schedule against references and properties."""

from __future__ import annotations

import pytest
import torch
from train_tiny import RandomTokens, TinyModel

from llmctl.model.config import dial
from llmctl.model.transformer import Transformer
from llmctl.train.loss import lm_loss
from llmctl.train.optimizer import Optimizer, is_block_matrix, orthogonalize
from llmctl.train.order import Shuffle
from llmctl.train.schedule import rate_at
from llmctl.train.settings import OptimizerSettings, ScheduleSettings


@pytest.mark.parametrize("shape", [(32, 32), (24, 64), (64, 24), (3, 40, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_orthogonalised_update_has_singular_values_near_one(shape, dtype):
    g = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    found = orthogonalize(g, dtype).float()
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6 and values.max() < 1.3
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(found.flatten(), (u @ vh).flatten(), dim=0)
    assert cosine > 0.98  # and they are the directions of the gradient


def test_nothing_comes_of_nothing():
    assert not orthogonalize(torch.zeros(8, 8)).any()


def test_muon_by_hand():
    model = TinyModel()
    settings = OptimizerSettings(matrix_lr=0.1, weight_decay=0.5, momentum=0.9)
    optimizer = Optimizer(model, settings, torch.float32)
    weight = model.layers[0]["up"].weight  # 32 x 16: tall
    before, moment = weight.detach().clone(), torch.zeros_like(weight)
    for step in range(3):
        lm_loss(model, RandomTokens().batches(step)[0]).total.backward()
        moment = 0.9 * moment + 0.1 * weight.grad
        update = orthogonalize(0.1 * weight.grad + 0.9 * moment, torch.float32)
        expected = before * (1 - 0.05 * 0.5) - 0.05 * 2**0.5 * update
        optimizer.step(0.5)
        torch.testing.assert_close(weight.detach(), expected, atol=1e-5, rtol=1e-4)
        before = weight.detach().clone()


def test_adamw_is_torchs():
    ours, theirs = TinyModel(), TinyModel()
    settings = OptimizerSettings(name="adamw", lr=0.01, weight_decay=0.1)
    optimizer = Optimizer(ours, settings)
    named = dict(theirs.named_parameters())
    decayed = [p for n, p in named.items() if is_block_matrix(n, p)]
    rest = [p for n, p in named.items() if not is_block_matrix(n, p)]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), foreach=False, fused=False)
    for step in range(5):
        for model in (ours, theirs):
            model.eval()
            lm_loss(model, RandomTokens().batches(step)[0]).total.backward()
        optimizer.step(1.0)
        reference.step()
        reference.zero_grad()
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p, named[name], atol=1e-6, rtol=1e-5)


def test_what_goes_to_which_optimizer():
    model = TinyModel()
    matrices = {n for n, p in model.named_parameters() if is_block_matrix(n, p)}
    assert matrices == {f"layers.{i}.{k}.weight" for i in range(2) for k in ("up", "down")}
    state = Optimizer(model, OptimizerSettings()).state()
    assert {k.removesuffix(".momentum") for k in state} == matrices


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_head_of_its_own_and_its_embedding_have_their_rates(name):
    """Adam's first step moves every weight that has a gradient by its rate."""
    rates = OptimizerSettings(name=name, lr=0.01, embedding_lr=0.3, head_lr=0.002, weight_decay=0.0)
    for tied, expected in ((False, {"embed_tokens": 0.3, "lm_head": 0.002}), (True, {"embed_tokens": 0.01})):
        model = Transformer(dial(2, 64, 16, width=32, head_dim=16, tie_embeddings=tied))
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        Optimizer(model, rates).step(0.5)
        moved = {n: float((before[n] - p.detach()).abs().mean()) for n, p in model.named_parameters()}
        for part, rate in {**expected, "norm": 0.01}.items():
            assert moved[f"{part}.weight"] == pytest.approx(0.5 * rate, rel=1e-3), (tied, part)


def test_warmup_constant_cooldown():
    settings = ScheduleSettings(warmup=0.1, cooldown=0.5, final=0.1)
    rates = [rate_at(s, 100, settings) for s in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert set(rates[10:50]) == {1.0}
    assert rates[75] == pytest.approx(0.55)
    assert rates[99] == pytest.approx(0.1 + 0.9 / 50) and rates[99] > 0
    assert rate_at(0, 1, ScheduleSettings()) == 1.0


def test_drawing_without_replacement_from_any_point():
    whole = Shuffle(7, seed=3).take(0, 21)
    for epoch in range(3):
        assert sorted(i for e, i in whole if e == epoch) == list(range(7))
    assert whole[:7] != [(0, i) for _, i in whole[7:14]]
    assert Shuffle(7, seed=3).take(5, 9) == whole[5:14]
    assert Shuffle(7, seed=4).take(0, 21) != whole
