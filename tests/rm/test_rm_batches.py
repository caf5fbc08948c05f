"""Batches: what is padded, what stays together, what each step sees."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from llmctl.errors import UserError
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import RewardModel, Transformer
from llmctl.rm.batches import RankingSource, collate, cuts
from llmctl.rm.config import LossSettings
from llmctl.rm.data import Ranking
from llmctl.rm.loss import RankingLoss
from llmctl.rm.measure import score_all
from llmctl.train import distributed


def some(n: int, seed: int = 0) -> list[Ranking]:
    """Rankings of 2 to 4 replies, 3 to 40 tokens long."""
    rng = np.random.default_rng(seed)

    def one() -> Ranking:
        k = int(rng.integers(2, 5))
        replies = tuple(rng.integers(1, 50, rng.integers(3, 41)).astype(np.int32) for _ in range(k))
        return Ranking(replies, tuple(int(r) for r in rng.permutation(k)), 2)

    return [one() for _ in range(n)]


def tiny() -> RewardModel:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(50, 2, 32, 2, 2, 16, 64, context=64))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return RewardModel(model).eval()


def test_a_score_depends_neither_on_padding_nor_on_its_neighbours() -> None:
    rankings, model = some(20), tiny()
    together = score_all(model, rankings, "fp32", 10**6)
    with torch.no_grad():
        alone = [[float(model(torch.tensor(ids[None]).long(), torch.tensor([len(ids)]))) for ids in r.replies]
                 for r in rankings]  # fmt: skip
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(torch.tensor(a), torch.tensor(b), atol=1e-5)
    cut = score_all(model, rankings[::-1], "fp32", 200)[::-1]
    assert all(a == pytest.approx(b, abs=1e-5) for a, b in zip(cut, together, strict=True))


def test_the_loss_is_the_same_whatever_stands_in_the_padding() -> None:
    batch, model = collate(some(5)), tiny()
    before = RankingLoss(LossSettings())(model, batch).total
    for row, length in zip(batch.ids, batch.extra["lengths"], strict=True):
        row[length:] = 7
    assert torch.equal(RankingLoss(LossSettings())(model, batch).total, before)


def test_all_replies_of_a_prompt_stay_in_one_micro_batch() -> None:
    rankings = some(50)
    parts = list(cuts(rankings, 300))
    assert sorted(id(r) for p in parts for r in p) == sorted(map(id, rankings))
    assert len(parts) > 10
    for part in parts:
        rows = sum(len(r.replies) for r in part)
        assert rows * max(r.longest for r in part) <= 300 or len(part) == 1
    assert [r.longest for p in parts for r in p] == sorted(r.longest for r in rankings)


def test_gradients_are_those_of_one_large_batch() -> None:
    rankings, found = some(12), []
    for micro_tokens in (10**6, 150):
        model = tiny()
        for batch in RankingSource(rankings, 12, micro_tokens, seed=0).batches(0):
            RankingLoss(LossSettings())(model, batch).total.backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*found, strict=True))


def test_an_epoch_sees_every_comparison_once_and_a_step_is_a_function_of_its_number() -> None:
    rankings = some(30)
    source = RankingSource(rankings, 10, 10**6, seed=1)
    seen = Counter(b.tokens for step in range(3) for b in source.batches(step))
    assert sum(t * n for t, n in seen.items()) == sum(r.tokens for r in rankings)
    again = RankingSource(rankings, 10, 10**6, seed=1).batches(2)[0]
    assert torch.equal(again.ids, source.batches(2)[0].ids)
    assert not torch.equal(again.ids, RankingSource(rankings, 10, 10**6, seed=2).batches(2)[0].ids)


def test_scores_are_float32_even_where_products_are_bfloat16() -> None:
    model, ids = tiny(), torch.randint(1, 50, (200, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        scores = model(ids, torch.full((200,), 8))
    assert scores.dtype == torch.float32 and not torch.equal(scores, scores.bfloat16().float())


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_a_step_and_together_have_the_gradient_of_one(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rankings, found = some(12), []
    for world in (1, processes):
        model, seen = tiny(), 0
        monkeypatch.setenv("WORLD_SIZE", str(world))
        for rank in range(world):
            monkeypatch.setenv("RANK", str(rank))
            for batch in map(distributed.part, RankingSource(rankings, 12, 400, seed=0).batches(0)):
                seen += batch.tokens
                RankingLoss(LossSettings())(model, batch).total.backward()
        assert seen == sum(r.tokens for r in rankings)
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*found, strict=True))


def test_more_processes_than_prompts_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="3 prompts cannot be divided among 4 processes"):
        RankingSource(some(9), 3, 400, seed=0)
