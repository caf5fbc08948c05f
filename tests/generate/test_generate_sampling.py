"""The choice of a token against definitions written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.generate.sampling import Sampling, choose, row_keys, uniforms


def kept(logits: list[float], **options: float) -> set[int]:
    """Which tokens can be drawn at all, found by trying a fine grid of noise."""
    grid = torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1]
    rows = torch.tensor(logits).expand(len(grid), -1)
    return set(choose(rows, Sampling(**options), grid)[0].tolist())  # type: ignore[arg-type]


def test_filters_by_hand() -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().tolist()
    assert kept(logits) == {0, 1, 2, 3}
    assert kept(logits, top_k=2) == {0, 1}
    assert kept(logits, top_p=0.4) == {0}
    assert kept(logits, top_p=0.41) == {0, 1}
    assert kept(logits, top_p=0.71) == {0, 1, 2}
    assert kept(logits, min_p=0.49) == {0, 1, 2}
    assert kept(logits, min_p=0.51) == {0, 1}
    assert kept(logits, min_p=1.0) == {0}
    assert kept(logits, top_k=3, top_p=0.75) == {0, 1}  # of what top-k leaves (0.9), 0.75 is 0.675
    assert kept(logits, temperature=0) == {0}


def test_equal_logits_keep_exactly_k() -> None:
    assert len(kept([1.0] * 8, top_k=3)) == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(0, 10_000), st.floats(0.2, 3.0))
def test_inversion_gives_each_token_its_share(size: int, seed: int, temperature: float) -> None:
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(seed)) * 2
    grid = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    ids, logprobs = choose(logits.expand(2000, -1), Sampling(temperature=temperature), grid)
    chances = (logits[0] / temperature).softmax(-1)
    shares = torch.bincount(ids, minlength=size) / 2000
    assert (shares - chances).abs().max() < 1.01 / 2000 + 1e-5
    torch.testing.assert_close(logprobs, chances.log()[ids], atol=1e-5, rtol=1e-5)
    assert (ids.diff() >= 0).all()


def test_impossible_tokens_are_never_drawn_not_even_at_the_edges() -> None:
    logits = torch.full((5, 130), float("-inf"))
    logits[:, [64, 100]] = 0.0
    noise = torch.tensor([0.0, 0.5 - 1e-9, 0.5, 1 - 2**-53, 1 - 1e-9], dtype=torch.float64)
    assert choose(logits, Sampling(), noise)[0].tolist() == [64, 64, 100, 100, 100]


def test_the_penalty_of_ctrl_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.9, -1.0]])
    seen = torch.tensor([[True, False, True]])
    ids, logprobs = choose(logits, Sampling(temperature=0, repetition_penalty=2.0), torch.zeros(1), seen)
    assert ids.item() == 1
    assert logprobs.item() == pytest.approx(logits.log_softmax(-1)[0, 1].item())  # of the model, not of the penalty


def test_noise_is_uniform_and_independent_across_rows_and_steps() -> None:
    keys = row_keys(5, [(p, s) for p in range(60) for s in range(50)])
    assert len(np.unique(keys)) == 3000
    steps = torch.stack([uniforms(keys, t) for t in range(20)])
    assert steps.min() >= 0 and steps.max() < 1
    assert abs(steps.mean() - 0.5) < 0.005 and abs(steps.var() - 1 / 12) < 0.002
    correlation = torch.corrcoef(steps)
    assert (correlation - torch.eye(20)).abs().max() < 0.08
    again = uniforms(row_keys(5, [(7, 3)]), 11)
    assert again.item() == steps[11, 7 * 50 + 3].item()


@pytest.mark.parametrize(
    "wrong",
    [{"max_new_tokens": 0}, {"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0},
     {"top_p": 1.1},     {"min_p": 2}, {"repetition_penalty": 0}, {"stop_strings": ("",)}],
)  # fmt: skip
def test_settings_out_of_range_are_the_person_s_mistake(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampling(**wrong)
