"""What prompts begin with is run once, and nobody can tell from the answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from generate_tiny import CONTEXT, greedy_without_cache, model, prompts, tokenizer

from llmctl.generate import prefill as module
from llmctl.generate.continuous import ContinuousBatch, Request
from llmctl.generate.decoder import Decoder
from llmctl.generate.engine import Engine
from llmctl.generate.prefill import prefill
from llmctl.generate.sampling import Sampling

TOKENIZER = tokenizer()
MODEL = model(TOKENIZER.vocab_size)
(FRONT,) = prompts([70], seed=7)
# The same beginning before tails of all lengths; the second prompt is the beginning itself and one token.
ASKED = [FRONT + tail for tail in prompts([30, 1, 7, CONTEXT - 71, 2], seed=8)]


class Counted:
    """The model, with the tokens that run through it counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens, real = 0, type(MODEL).forward

        def forward(mine: Any, ids: torch.Tensor, *rest: Any, **named: Any) -> Any:
            self.tokens += ids.numel()
            return real(mine, ids, *rest, **named)

        monkeypatch.setattr(type(MODEL), "forward", forward)


def test_answers_are_those_of_full_passes() -> None:
    sampling = Sampling(max_new_tokens=20, temperature=0, stop_ids=(41, 42))
    for kv_heads in (1, 4):
        weights = model(TOKENIZER.vocab_size, kv_heads, seed=kv_heads)
        found = Engine(weights, TOKENIZER, "fp32").generate(ASKED, sampling, n=2)
        for prompt, group in zip(ASKED, found, strict=True):
            assert [s.ids for s in group] == 2 * [greedy_without_cache(weights, prompt, 20, (41, 42))]


@torch.inference_mode()
def test_the_beginning_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [prefill(MODEL, [p])[1] for p in ASKED]
    count = Counted(monkeypatch)
    cache, logits = prefill(MODEL, ASKED)
    longest = max(map(len, ASKED))
    assert count.tokens == 70 + len(ASKED) * (longest - 70) and cache.end == longest
    torch.testing.assert_close(logits, torch.cat(plain), atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(module, "_PASS", 16)  # in several passes
    torch.testing.assert_close(prefill(MODEL, ASKED)[1], logits, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_short_beginning_changes_nothing_at_all() -> None:
    """A chat format's header is shared by all prompts; a pass for it would only round otherwise."""
    asked = [[1, 2, 3, *p] for p in prompts([20, 30])]
    _, logits = prefill(MODEL, asked)
    ids = torch.zeros(2, 33, dtype=torch.int64)
    for row, p in zip(ids, asked, strict=True):
        row[33 - len(p) :] = torch.tensor(p)
    cache = module.KVCache(2, 2, 12, torch.tensor([10, 0]), torch.float32, 33)
    assert torch.equal(logits, MODEL.logits(MODEL(ids, positions=cache.extend(33), cache=cache)[:, -1]))


def test_equal_prompts_keep_a_token_of_their_own() -> None:
    with torch.inference_mode():
        _, logits = prefill(MODEL, [FRONT, list(FRONT)])
    torch.testing.assert_close(logits[0], logits[1])
    torch.testing.assert_close(logits[:1], prefill(MODEL, [FRONT])[1], atol=1e-4, rtol=1e-4)


def test_requests_that_join_share_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ContinuousBatch(Decoder(MODEL), TOKENIZER)
    sampling = Sampling(max_new_tokens=12, temperature=0, stop_ids=())
    requests = [Request(p, sampling) for p in ASKED]
    count = Counted(monkeypatch)
    batch.join(requests)
    assert count.tokens == 70 + len(ASKED) * (max(map(len, ASKED)) - 70)
    while len(batch):
        batch.step()
    for r in requests:
        assert r.ids == greedy_without_cache(MODEL, r.prompt, 12, ())
