"""DPO on packed comparisons: what a row each would give, and what the likelihood of the better reply adds."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from rl_tiny import tokenizer
from torch import Tensor

from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer
from llmctl.rl.config import MethodSettings, RlConfig
from llmctl.rl.preference import DpoLoss, Pair, batches, read_pairs
from llmctl.workspace import Workspace

VOCAB = 97


def model(seed: int) -> Transformer:
    torch.manual_seed(seed)
    made = Transformer(
        ModelConfig(VOCAB, layers=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp_width=64, context=64)
    )
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return made


def comparisons(count: int) -> list[Pair]:
    rng = random.Random(1)

    def ids(n: int) -> list[int]:
        return [rng.randrange(VOCAB) for _ in range(n)]

    found = []
    for i in range(count):
        prompt = ids(rng.randint(1, 6))
        better, worse = prompt + ids(rng.randint(1, 24)), prompt + ids(rng.randint(1, 24))
        found.append(Pair(better, worse, len(prompt), 1 / (1 + i % 3), (i % 2) / (1 + i % 3)))
    return found


def alone(made: Transformer, ids: list[int], prompt: int) -> Tensor:
    """The log-probability of one reply, in a row of its own, by autograd over all the logits."""
    row = torch.tensor([ids])
    logp = made.logits(made(row[:, :-1])).log_softmax(-1).gather(2, row[:, 1:, None])[0, :, 0]
    return logp[prompt - 1 :].sum()


def gradients(made: Transformer) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}
    made.zero_grad()
    return found


@pytest.mark.parametrize("tokens", [1, 200, 100_000])
def test_packed_comparisons_count_as_they_do_alone(tokens: int) -> None:
    pairs, policy, reference = comparisons(17), model(0), model(1)
    beta, smoothing, weight = 0.3, 0.1, 0.7
    method = MethodSettings(name="dpo", beta=beta, label_smoothing=smoothing, sft_weight=weight)
    loss = DpoLoss(reference, method)
    total = count = right = 0.0
    for batch in batches(pairs, tokens):
        found = loss(policy, batch)
        found.total.backward()
        total, count = total + float(found.total.detach()), count + float(found.count)
        right += found.logs["accuracy"]
    got = gradients(policy)

    expected, ranked = torch.zeros(()), 0.0
    for p in pairs:
        better, worse = alone(policy, p.better, p.prompt), alone(policy, p.worse, p.prompt)
        with torch.no_grad():
            before = alone(reference, p.better, p.prompt) - alone(reference, p.worse, p.prompt)
        margin = beta * (better - worse - before)
        each = -(1 - smoothing) * margin.sigmoid().log() - smoothing * (-margin).sigmoid().log()
        expected = expected + p.share * each - p.best * weight * better / (len(p.better) - p.prompt)
        ranked += p.share * float(margin > 0)
    expected.backward()

    assert count == pytest.approx(sum(p.share for p in pairs))
    assert total == pytest.approx(float(expected.detach()), rel=1e-5)
    assert right == pytest.approx(ranked)
    for name, gradient in gradients(policy).items():
        rounding = 2e-6 * max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(got[name], gradient, atol=rounding, rtol=1e-4)


def test_both_replies_of_a_comparison_are_in_one_row_and_no_token_is_lost() -> None:
    pairs = comparisons(40)
    found = batches(pairs, 512)
    assert sum(b.tokens for b in found) == sum(len(p.better) + len(p.worse) - 2 for p in pairs)
    assert sum(float(b.extra["units"].sum()) for b in found) == pytest.approx(sum(p.share for p in pairs))
    padded = sum(b.ids.numel() for b in found) / sum(b.tokens for b in found)
    assert padded < 1.25
    for batch in found:
        for row, there in zip(batch.extra["row"], batch.extra["at"] >= 0, strict=True):
            replies = set(row[there].tolist())
            assert replies == {i ^ 1 for i in replies}


def test_a_ranking_counts_once_and_only_its_best_reply_is_imitated(tmp_path: Path, workspace: Workspace) -> None:
    row = {"prompt": "What is 1?", "responses": ["is", "it", "is it", "it is"], "ranking": [1, 0, 0, 2]}
    (tmp_path / "ranked.jsonl").write_text(json.dumps(row) + "\n")
    settings = RlConfig.model_validate({"model": "m", "method": "dpo", "data": [str(tmp_path / "ranked.jsonl")]})
    tok = tokenizer()
    pairs = read_pairs(settings, workspace, tok, 96)
    found = {
        tuple(tok.decode(ids[p.prompt : -1]) for ids in (p.better, p.worse)): p for p in pairs.train + pairs.heldout
    }
    assert {k: (p.share, p.best) for k, p in found.items()} == {
        ("it", "is"): (0.2, 0.25), ("is it", "is"): (0.2, 0.25), ("is", "it is"): (0.2, 0.0),
        ("it", "it is"): (0.2, 0.25), ("is it", "it is"): (0.2, 0.25),
    }  # fmt: skip
