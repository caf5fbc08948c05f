"""Held-out answers of every kind can be judged: programs too, which are run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llmctl.generate.engine import Sample
from llmctl.model.tokenizer import train_tokenizer
from llmctl.sft.answers import Questions
from llmctl.verify import problems


@pytest.mark.parametrize("kind", ["code", "countdown", "sums"])
def test_a_taught_answer_is_found_right(kind: str) -> None:
    rows = [item.row() for item in problems(kind, 3, 0, heldout=True)]
    replies = [row["messages"][-1]["content"] for row in rows]

    def generate(prompts: list[list[int]], *_: Any, **__: Any) -> list[list[Sample]]:
        return [[Sample([1], [False], [0.0], "stop", text)] for text in replies]

    engine: Any = SimpleNamespace(tokenizer=train_tokenizer(iter(["the answer is"] * 3), 300), generate=generate)
    data: Any = SimpleNamespace(heldout=rows, library=[])
    assert Questions(engine, data, len(rows), 8).ask()["heldout_right"] == 1.0
    replies[:] = ["I do not know."] * len(rows)
    assert Questions(engine, data, len(rows), 8).ask()["heldout_right"] == 0.0
