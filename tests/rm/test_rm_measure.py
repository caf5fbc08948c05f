"""Measures against numbers worked by hand and independent implementations."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch

from llmctl.model.config import ModelConfig
from llmctl.model.transformer import RewardModel, Transformer
from llmctl.rm.data import Ranking
from llmctl.rm.measure import accuracy, by_kind, correlation, length_bias, normalise


def ranking(ranks: tuple[int, ...], lengths: tuple[int, ...], kind: str = "") -> Ranking:
    return Ranking(tuple(np.ones(n, np.int32) for n in lengths), ranks, 2, kind)


ROWS = [ranking((0, 1), (5, 3), "a"), ranking((1, 0, 1), (3, 3, 9), "b"), ranking((0, 1), (4, 5))]
SCORES = [[1.0, 0.0], [2.0, 2.0, -1.0], [0.0, 3.0]]


def test_accuracy_by_hand() -> None:
    found = accuracy(ROWS, SCORES)  # right; a tie and right; wrong
    assert (found["pairs"], found["accuracy"]) == (4, 0.5)
    assert found["loss"] == pytest.approx(sum(log(1 + exp(-m)) for m in (1, 0, 3, -3)) / 4)
    kinds = by_kind(ROWS, SCORES)
    assert {k: (v["pairs"], v["accuracy"]) for k, v in kinds.items()} == {"a": (1, 1.0), "b": (2, 0.5)}


def test_length_bias_by_hand() -> None:
    found = length_bias(ROWS, SCORES)  # longer: right; a tie and wrong; wrong
    assert found["longer_is_better"] == 0.25
    assert found["length_correlation"] == pytest.approx(
        np.corrcoef([3, 1, 1, 1, 7, 2, 3], [1, 0, 2, 2, -1, 0, 3])[0, 1]
    )
    assert correlation([1, 1], [2, 3]) is None


def test_rewards_are_normalised_by_the_head_and_the_bias() -> None:
    model = RewardModel(Transformer(ModelConfig(50, 1, 16, 1, 1, 16, 16, context=32)))
    ids, lengths = torch.randint(0, 50, (9, 8)), torch.arange(1, 9).repeat(2)[:9]
    with torch.no_grad():
        raw = model(ids, lengths)
        gain, bias = normalise(model, [raw[:4].tolist(), raw[4:].tolist()])
        rewards = model(ids, lengths) + bias
    assert rewards.mean().item() == pytest.approx(0, abs=1e-5)
    assert rewards.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.allclose(model(ids, lengths), raw * gain, atol=1e-5)
    assert normalise(model, [[2.0, 2.0]]) == (1.0, -2.0)  # nothing to scale by
