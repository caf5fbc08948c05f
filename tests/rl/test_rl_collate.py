"""Roll-outs become tensors: the shift and the mask."""

from __future__ import annotations

import torch

from llmctl.generate.engine import Sample
from llmctl.rl.collate import collate
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


def test_an_empty_reply_is_no_harm() -> None:
    rows = collate([rollout([1, 2], [], finish="length"), rollout([1], [2])], MethodSettings(), 4)
    assert rows["units"].sum() == 1
    assert torch.isfinite(rows["weights"]).all()
