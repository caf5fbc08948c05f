"""Requests that join and leave a running batch get the tokens they get alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from generate_tiny import CONTEXT, model, prompts, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.generate.continuous import ContinuousBatch, Request
from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling

TOKENIZER = tokenizer()
# In float64 products of another size round so little that no draw tips.
EXACT = Engine(model(TOKENIZER.vocab_size).double(), TOKENIZER, "fp32")
EXACT.dtype = torch.float64
STOPS = tuple(range(40, 60))
SAMPLINGS = [
    Sampling(max_new_tokens=25, stop_ids=STOPS, seed=3),
    Sampling(max_new_tokens=12, temperature=0, stop_ids=STOPS),
    Sampling(max_new_tokens=40, temperature=0.7, top_p=0.8, top_k=30, stop_ids=STOPS, seed=9),
    Sampling(max_new_tokens=30, repetition_penalty=1.3, stop_ids=STOPS, seed=1),
    Sampling(max_new_tokens=30, stop_strings=("e", "at"), stop_ids=STOPS, seed=2),
]


def finished(arrivals: dict[int, list[Request]], tools=lambda tool, text: "") -> None:
    """Run until all have ended; `arrivals` by step."""
    with EXACT.continuous() as batch:
        step = 0
        while len(batch) or arrivals:
            batch.join(arrivals.pop(step, []))
            for left in batch.step():
                if left.call:
                    batch.answer(left, tools(*left.call))
                    if not left.finish:
                        arrivals.setdefault(step + 3, []).append(left)
            step += 1


def alone(r: Request, tools=None) -> tuple[list[int], str, str]:
    (group,) = EXACT.generate([r.prompt], r.sampling, r.sample + 1, tools)
    return group[r.sample].ids, group[r.sample].finish, group[r.sample].text


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, CONTEXT - 1), st.integers(0, 4), st.integers(0, 2)),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 999),
)
def test_joining_and_leaving_changes_no_token(asked: list[tuple[int, int, int, int]], seed: int) -> None:
    texts = prompts([length for _, length, _, _ in asked], seed)
    made = [Request(p, SAMPLINGS[s], sample) for p, (_, _, s, sample) in zip(texts, asked, strict=True)]
    arrivals: dict[int, list[Request]] = {}
    for request, (at, *_) in zip(made, asked, strict=True):
        arrivals.setdefault(at, []).append(request)
    finished(arrivals)
    for r in made:
        ids, finish, text = alone(r)
        assert (r.ids, r.finish) == (ids, finish)
        if r.sampling.stop_strings:
            assert "".join(p.text for p in r.pieces) == text


def test_a_tool_s_result_is_put_in_as_the_engine_puts_it_in() -> None:
    calls = 0

    def tool(name: str, text: str) -> str:
        nonlocal calls
        calls += 1
        return f"{name} says 1 + 1 = 2<|im_end|>"

    start, end = TOKENIZER.id_of("<|python_start|>"), TOKENIZER.id_of("<|python_end|>")
    with torch.no_grad():  # a model that calls often
        weights = model(TOKENIZER.vocab_size).double()
        weights.embed_tokens.weight[[start, end]] *= 4
    engine = Engine(weights, TOKENIZER, "fp32")
    engine.dtype = torch.float64
    made = [Request(p, SAMPLINGS[0], s, tools=True) for s, p in enumerate(prompts([5, 9, 40, 90]))]
    made = [replace(r, sampling=replace(r.sampling, max_new_tokens=100, stop_ids=(), temperature=2.0)) for r in made]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "EXACT", engine)
        finished({0: made[:2], 4: made[2:]}, tool)
        assert calls and any(p.forced for r in made for p in r.pieces)
        for r in made:
            assert (r.ids, r.finish) == alone(r, tool)[:2]


def test_a_cancelled_request_leaves_and_the_others_go_on() -> None:
    one, two = (Request(p, Sampling(max_new_tokens=9, stop_ids=())) for p in prompts([8, 20]))
    with EXACT.continuous() as batch:
        assert isinstance(batch, ContinuousBatch)
        batch.join([one, two])
        batch.step()
        one.finish = "cancelled"
        assert one in batch.step() and len(one.ids) == 1 and len(batch) == 1
        while len(batch):
            batch.step()
    assert two.ids == alone(two)[0]
