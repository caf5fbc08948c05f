"""Likelihoods with shared beginnings, against one full pass a sequence."""

from __future__ import annotations

import random

import pytest
import torch

from llmctl.generate.engine import Engine
from llmctl.generate.scoring import Scored, _families
from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer

V = 61


@pytest.fixture(scope="module", params=["qwen3", "gpt2"])
def engine(request: pytest.FixtureRequest) -> Engine:
    torch.manual_seed(0)
    shape = {"layers": 2, "width": 32, "heads": 4, "head_dim": 8, "mlp_width": 48, "context": 96}
    kv_heads = 2 if request.param == "qwen3" else 4
    model = Transformer(ModelConfig(V, kv_heads=kv_heads, **shape, family=request.param))
    for p in model.parameters():
        torch.nn.init.normal_(p, 0, 0.3)
    return Engine(model, None, "fp32")


def alone(engine: Engine, ids: list[int], start: int) -> tuple[list[float], bool]:
    """By the definition: one pass over one sequence, and a softmax."""
    with torch.no_grad():
        chances = engine.model.logits(engine.model(torch.tensor([ids[:-1]])))[0].log_softmax(-1)
    told = [float(chances[at - 1, ids[at]]) for at in range(start, len(ids))]
    return told, all(int(chances[at - 1].argmax()) == ids[at] for at in range(start, len(ids)))


def agree(engine: Engine, groups: list[list[Scored]]) -> None:
    found = engine.likelihoods(groups)
    assert [len(g) for g in found] == [len(g) for g in groups]
    for group, scored in zip(groups, found, strict=True):
        for (ids, start), one in zip(group, scored, strict=True):
            logprobs, greedy = alone(engine, list(ids), start)
            assert one.logprobs == pytest.approx(logprobs, abs=2e-5)
            assert one.greedy == greedy and one.total == pytest.approx(sum(logprobs), abs=1e-4)


@pytest.mark.parametrize("prefix", [0, 30])  # 20 rows: a pass of its own is worth 30 tokens
@pytest.mark.parametrize("seed", range(3))
def test_trees_and_a_common_beginning_change_nothing(engine: Engine, prefix: int, seed: int) -> None:
    rng = random.Random(seed)

    def some(least: int, most: int) -> list[int]:
        return [rng.randrange(V) for _ in range(rng.randint(least, most))]

    front, groups = [rng.randrange(V) for _ in range(prefix)], []
    for _ in range(20):
        context = front + some(1, 30)
        groups.append([(context + some(1, 6), len(context)) for _ in range(rng.randint(1, 5))])
    agree(engine, groups)


def test_contexts_that_differ_before_one_ending(engine: Engine) -> None:
    """Schema tasks: the ending is the same, and what is scored begins where the sequences no longer share anything."""
    ending = [7, 8, 9]
    agree(engine, [[([1, 2, 3, 4] + ending, 4), ([1, 2, 5, 6, 7] + ending, 5)], [([3] + ending, 1)]])


def test_a_choice_that_begins_another_and_equal_choices(engine: Engine) -> None:
    agree(engine, [[([1, 2, 3], 2), ([1, 2, 3, 4], 2), ([1, 2, 3], 2)], [([5, 6], 1), ([5, 6], 1)]])


def test_what_is_greedy_is_said_to_be(engine: Engine) -> None:
    ids = [3]
    with torch.no_grad():
        for _ in range(5):
            ids.append(int(engine.model.logits(engine.model(torch.tensor([ids])))[0, -1].argmax()))
    assert engine.likelihoods([[(ids, 1), ([*ids[:-1], (ids[-1] + 1) % V], 1)]])[0][0].greedy
    assert not engine.likelihoods([[([*ids[:-1], (ids[-1] + 1) % V], 1)]])[0][0].greedy


def test_a_whole_context_and_nothing_at_all(engine: Engine) -> None:
    agree(engine, [[(list(range(60)) + list(range(37)), 40)]])
    assert engine.likelihoods([]) == []


def test_families_of_rows_share_what_is_worth_it_and_many_rows_are_parted_quickly() -> None:
    few, more = list(range(300)), list(range(400, 800))
    trunks = [[*few, i] for i in range(5)] + [[*more, i] for i in range(5)] + [[9, 9, 9], [*few[:9], 50]]
    found = sorted(_families(trunks), key=lambda f: -f[1])
    assert found == [([5, 6, 7, 8, 9], 400), ([0, 1, 2, 3, 4], 300), ([10, 11], 0)]
    assert _families([]) == [] and _families([[1, 2]]) == [([0], 0)]
    many = [[1, 2, i % 7, i] for i in range(5000)]
    nested = [list(range(n)) for n in range(2, 400)]  # each begins the next
    for some in (many, nested):
        assert sorted(i for members, _ in _families(some) for i in members) == list(range(len(some)))
        assert all(some[i][:n] == some[members[0]][:n] for members, n in _families(some) for i in members)
