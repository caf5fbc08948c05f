"""Roll-outs become tensors: the shift, the mask, and batches that do not depend on how they are cut."""

from __future__ import annotations

import torch

from llmctl.generate.engine import Sample
from llmctl.rl.collate import batch_of, collate, cuts
from llmctl.rl.config import MethodSettings
from llmctl.rl.rewards import Rollout
from llmctl.verify import problems

ITEM = problems("sums", 1, 0, heldout=False)[0]


def rollout(prompt: list[int], reply: list[int], forced: tuple[int, ...] = (), finish: str = "stop") -> Rollout:
    sample = Sample(reply, [i in forced for i in range(len(reply))], [-float(t) for t in reply], finish, "")
    return Rollout(ITEM, prompt, sample)


def test_shift_mask_and_padding() -> None:
    rows = collate([rollout([1, 2], [3, 4, 5], forced=(1,)), rollout([6], [7])], MethodSettings(), 8)
    assert rows["ids"].tolist() == [[6, 7, 0, 0], [1, 2, 3, 4]]  # shortest first
    assert rows["targets"].tolist() == [[7, 0, 0, 0], [2, 3, 4, 5]]
    # Trained: the reply 7; of 3 4 5 what was not forced, each reply counting 1. A prompt token is never a target.
    assert rows["weights"].tolist() == [[1, 0, 0, 0], [0, 0.5, 0, 0.5]]
    assert rows["sampled"].tolist() == [[-7, 0, 0, 0], [0, -3, -4, -5]]
    assert rows["reply"].int().tolist() == [[1, 0, 0, 0], [0, 1, 1, 1]]
    assert rows["index"].tolist() == [1, 0]
    assert rows["lengths"].tolist() == [1, 4]


def test_a_cut_reply_is_trained_on_unless_masked() -> None:
    cut = [rollout([1], [2, 3], finish="length")]
    assert collate(cut, MethodSettings(), 8)["units"].tolist() == [1]
    masked = collate(cut, MethodSettings(mask_truncated=True), 8)
    assert masked["units"].tolist() == [0]
    assert masked["weights"].sum() == 0


def test_cuts_cover_every_row_once_within_the_budget() -> None:
    replies = [rollout([1] * (1 + i % 3), [2] * (1 + i % 7)) for i in range(40)]
    rows = collate(replies, MethodSettings(normalise="token"), 8)
    for budget in (1, 20, 33, 10_000):
        found = list(cuts(rows, budget))
        assert [i for begin, end in found for i in range(begin, end)] == list(range(40))
        batches = [batch_of(rows, *cut) for cut in found]
        assert all(b.ids.numel() <= budget or len(b.ids) == 1 for b in batches)
        assert sum(float(b.weights.sum()) for b in batches) == float(rows["weights"].sum())
        assert sum(b.tokens for b in batches) == int(rows["lengths"].sum())


def test_an_empty_reply_is_no_harm() -> None:
    rows = collate([rollout([1, 2], [], finish="length"), rollout([1], [2])], MethodSettings(), 4)
    assert rows["units"].sum() == 1
    assert torch.isfinite(rows["weights"]).all()
