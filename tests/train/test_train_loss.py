"""Losses against the plain way to compute them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from train_tiny import VOCAB, RandomTokens, TinyModel

from llmctl.formats.tokens import TokenReader, TokenWriter, write_meta
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer
from llmctl.train import loss as loss_module
from llmctl.train.batch import Batch
from llmctl.train.evaluate import bits_per_byte, mean_loss
from llmctl.train.loss import lm_loss
from llmctl.train.packing import PackedSource, best_fit, pack, statistics


def small(**changes) -> Transformer:
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 64, "context": 64}
    model = Transformer(ModelConfig(vocab_size=VOCAB, **shape, **changes))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)  # nothing at zero, so that every path carries a gradient
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("everything", [True, False])
def test_loss_and_gradients_are_those_of_the_whole_logits(monkeypatch, tied, everything):
    monkeypatch.setattr(loss_module, "CHUNK", 5)
    model = small(tie_embeddings=tied)
    batch = RandomTokens(micro=1).batches(0)[0]
    weights = torch.rand(batch.weights.shape) + 0.1 if everything else batch.weights * torch.rand(batch.weights.shape)
    batch = Batch(batch.ids, batch.targets, weights)
    assert (batch.trained is None) == everything
    found = lm_loss(model, batch)
    (found.total / 3).backward()
    chunked = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    losses = F.cross_entropy(model.logits(model(batch.ids)).flatten(0, 1), batch.targets.flatten(), reduction="none")
    plain = (losses * weights.flatten()).sum()
    (plain / 3).backward()
    torch.testing.assert_close(found.total, plain)
    assert float(found.count) == pytest.approx(float(weights.sum()))
    for n, p in model.named_parameters():
        torch.testing.assert_close(chunked[n], p.grad, atol=1e-5, rtol=1e-4)


def examples(n: int, longest: int, seed: int = 0) -> list[tuple[list[int], list[bool]]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, longest + 1, n)
    return [(rng.integers(0, VOCAB, s).tolist(), (rng.random(s) < 0.6).tolist()) for s in sizes]


def test_packed_loss_is_the_sum_of_separate_losses():
    model, made = small(), examples(12, 30)
    packed = pack(made, 48)
    assert len(packed) < 12 and packed.segments.max() > 1
    together = lm_loss(model, packed.batch(range(len(packed))))
    together.total.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    total = count = 0.0
    for ids, mask in made:
        alone = Batch(torch.tensor([ids[:-1]]), torch.tensor([ids[1:]]), torch.tensor([mask[1:]]).float())
        one = lm_loss(model, alone)
        one.total.backward()
        total, count = total + one.total.item(), count + float(one.count)
    assert together.total.item() == pytest.approx(total, abs=1e-5 * count)
    assert float(together.count) == count
    for n, p in model.named_parameters():
        torch.testing.assert_close(grads[n], p.grad, atol=1e-4, rtol=1e-4)


def test_packing_keeps_every_example_whole_and_counts_what_is_too_long():
    made = [*examples(40, 20), ([1] * 50, [True] * 50)]
    packed = pack(made, 24)
    assert packed.too_long == 1
    found = []
    for row in range(len(packed)):
        used = packed.used[row]
        for segment in range(packed.segments[row, :used].max() + 1):
            here = np.flatnonzero(packed.segments[row, :used] == segment)
            assert (packed.positions[row, here] == np.arange(len(here))).all()
            ids = [*packed.ids[row, here].tolist(), int(packed.targets[row, here[-1]])]
            found.append((ids, [bool(w) for w in packed.weights[row, here]]))
        assert not packed.weights[row, used:].any()
    assert sorted(found) == sorted((ids, mask[1:]) for ids, mask in made[:-1])
    assert statistics(packed)["trained_tokens"] == sum(sum(mask[1:]) for _, mask in made[:-1])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 32), max_size=60))
def test_best_fit_fills_rows_as_well_as_its_bound(sizes):
    rows = best_fit(list(enumerate(sizes)), 32)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in row) <= 32 for row in rows)
    assert len(rows) <= 11 / 9 * math.ceil(sum(sizes) / 32) + 1 or len(rows) <= sum(s > 16 for s in sizes) + 1


def test_a_source_of_packed_rows_goes_through_all_of_them_each_epoch():
    packed = pack(examples(40, 20), 24)
    source = PackedSource(packed, rows=4, at_once=3, seed=1)
    steps = math.lcm(len(packed), 4) // 4
    drawn = [tuple(row.tolist()) for s in range(steps) for b in source.batches(s) for row in b.ids]
    assert [len(b.ids) for b in source.batches(0)] == [3, 1]
    counts = {row: drawn.count(row) for row in set(drawn)}
    assert len(counts) == len(packed) and set(counts.values()) == {steps * 4 // len(packed)}
    again = PackedSource(packed, rows=4, at_once=3, seed=1)
    assert torch.equal(again.batches(7)[0].ids, source.batches(7)[0].ids)


def written(tmp_path, documents) -> TokenReader:
    writer = TokenWriter(tmp_path, "val", "uint16", 1000)
    for d in documents:
        writer.add(d)
    writer.close()
    write_meta(tmp_path, [writer], vocab_size=VOCAB, eos_id=0)
    return TokenReader(tmp_path, "val")


def test_bits_per_byte_by_hand(tmp_path):
    documents = [[5, 6, 7, 0], [8, 9, 10, 11, 12, 0], [3, 4, 0]]
    reader = written(tmp_path, documents)
    lengths = np.array([0, *range(1, VOCAB)])  # token 0 is special
    model = small()
    ids = torch.tensor([t for d in documents for t in d])
    nats = size = 0.0
    for start in range(0, len(ids) - 1, 5):
        x, y = ids[start : start + 5], ids[start + 1 : start + 6]
        x = x[: len(y)]
        logp = model.logits(model(x[None]))[0].log_softmax(-1).detach()
        for i, t in enumerate(y.tolist()):
            if lengths[t]:
                nats, size = nats - float(logp[i, t]), size + lengths[t]
    found = bits_per_byte(model, reader, lengths, 0, 5, "fp32")
    assert found == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert bits_per_byte(model, reader, lengths, 4, 5, "fp32") != pytest.approx(found)
    assert math.isnan(bits_per_byte(model, reader, np.zeros(VOCAB), 0, 5, "fp32"))


def test_mean_loss_leaves_the_model_as_it_was():
    model = TinyModel().train()
    batches = RandomTokens().batches(0)
    found = mean_loss(model, batches, "fp32")
    assert model.training and found == mean_loss(model, batches, "fp32")  # dropout is off while it measures
    assert math.isnan(mean_loss(model, []))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cap", [0.0, 5.0])
def test_the_loss_in_place_is_the_other_bit_for_bit(dtype, cap):
    torch.manual_seed(0)
    logits, targets, weights = torch.randn(40, 70).to(dtype) * 6, torch.randint(0, 70, (40,)), torch.rand(40)
    other = logits.clone()
    wanted = loss_module.softmax_loss(other, targets, weights, cap)
    found = loss_module.softmax_loss_in_place(logits, targets, weights, cap)
    assert torch.equal(found, wanted) and torch.equal(logits, other)
