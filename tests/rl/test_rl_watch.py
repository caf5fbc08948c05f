"""What is counted, and what is said when something is off."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llmctl.generate.engine import Sample
from llmctl.rl.rewards import Rollout
from llmctl.rl.watch import Diagnosis, repetition, samples_to_show, statistics
from llmctl.verify import Item, problems

ITEM = problems("sums", 1, 0, heldout=False)[0]
FINE = {"groups_without_spread": 0.4, "groups_all_wrong": 0.2, "truncated": 0.0, "repetition": 0.1, "length": 30,
        "accuracy": 0.5, "sampler_gap": 0.001}  # fmt: skip


def rollout(length: int, correct: bool, finish: str = "stop", text: str = "") -> Rollout:
    ids = list(range(length))
    found = Rollout(ITEM, [1], Sample(ids, [False] * length, [0.0] * length, finish, text), correct, correct)
    found.parts, found.total = {"accuracy": float(correct)}, float(correct)
    return found


def test_statistics() -> None:
    groups = [[rollout(4, True), rollout(6, False)], [rollout(9, False, "length"), rollout(2, False, text="Wait, 3")]]
    found = statistics(groups, torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert found["accuracy"] == found["reward"] == 0.25
    assert found["groups_without_spread"] == found["groups_all_wrong"] == 0.5
    assert found["length"] == 4  # of the replies that ended
    assert found["truncated"] == found["reflection"] == 0.25
    assert found["rollout_tokens"] == 21


def test_replies_that_a_model_judges_are_neither_right_nor_wrong() -> None:
    asked = Item("names", "Who is Ann?", "", "", [], False)
    groups = [[replace(rollout(4, False), item=asked) for _ in range(2)]]
    found = statistics(groups, torch.tensor([[0.3, 0.7]]))
    assert found["groups_all_right"] == found["groups_all_wrong"] == found["groups_without_spread"] == 0


def test_a_reply_that_is_alone_in_its_group_teaches() -> None:
    assert statistics([[rollout(4, False)], [rollout(4, True)]], torch.tensor([[0.0], [1.0]]))["group_std"] == 0
    assert statistics([[rollout(4, False)]], torch.tensor([[0.0]]))["groups_without_spread"] == 0


def test_repetition() -> None:
    assert repetition([1, 2, 3]) == 0
    assert repetition(list(range(50))) == 0
    assert repetition([7] * 50) > 0.97


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"groups_without_spread": 1.0, "groups_all_wrong": 1.0}, "all wrong"),
        ({"groups_without_spread": 1.0, "groups_all_wrong": 0.0, "groups_all_right": 1.0}, "all right"),
        ({"groups_without_spread": 1.0, "groups_all_wrong": 0.0}, "scored alike"),
        ({"truncated": 0.5}, "raise rollouts.max_new_tokens"),
        ({"reward_overlong": -0.4}, "lower method.overlong"),
        ({"repetition": 0.9}, "repeats itself"),
        ({"length": 90}, "replies grew from 30 to"),
        ({"sampler_gap": 0.3}, "nats off"),
    ],
)
def test_a_symptom_that_lasts_is_named_once(change: dict, line: str) -> None:
    watch = Diagnosis(64)
    said = watch.see(FINE)
    for _ in range(40):
        said += watch.see({**FINE, **change})
    assert len(said) == 1
    assert line in said[0]


def test_a_healthy_run_and_a_single_bad_step_are_left_alone() -> None:
    watch = Diagnosis(64)
    rows = [FINE] * 20 + [{**FINE, "truncated": 1.0, "sampler_gap": 0.5}] + [FINE] * 20
    assert [line for row in rows for line in watch.see(row)] == []


def test_the_best_a_middle_and_the_worst_are_shown() -> None:
    groups = [[rollout(1, True), rollout(1, False)], [rollout(1, False), rollout(1, False)]]
    assert [(rank, r.total) for rank, r in samples_to_show(groups)] == [("best", 1), ("median", 0), ("worst", 0)]
    assert samples_to_show([]) == []
