"""Answers before their reasoning, told from reasoning before the answer."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from llmctl.formats.answer_order import answer_first, answers_first

GUESSED = [
    # The two answers to one question that the matter is usually explained with.
    "The answer is $3. This is because 2 oranges at $2 are $4 total. So the 3 apples cost $9 total, and therefore each "
    "apple is 9/3 = $3.",
    "72. Natalia sold 48/2 = 24 clips in May. Altogether she sold 48 + 24 = 72 clips.",
    "**72**\n\nNatalia sold 48/2 = 24 clips in May, so altogether 48 + 24 = 72.",
    "Answer: 10\n\nExplanation: first, 60 minutes are an hour. 50 minutes give 0.2 * 50 = 10.",
    "Answer:\n10\nWe get 0.2 * 50 = 10 from the wage of a minute.",
    "It is 1,200. There are 12 months with 100 each, and 12 * 100 = 1200.",
    "The correct option is (B). Copper conducts because its electrons are free, so it must be B.",
    "There are 3. First s, t, then r is 1; later two more r are 1 + 2 = 3.",
]
REASONED = [
    "The total cost of the oranges is $4. 13 - 4 = 9, the cost of the 3 apples is $9. 9/3 = 3, so each apple costs $3.",
    "Natalia sold 48/2 = 24 clips in May. Altogether she sold 48 + 24 = 72 clips.",
    "2 + 2 = 4. Adding two to two always gives 4, since that is what the numbers mean: 2 + 2 = 4.",
    "Let me count: s, t, r, a, w, b, e, r, r, y. That is 1 + 2 = 3.",
    "It is 4.",
    "Paris. It has been the capital since 987, apart from some years.",
    "Yes, because the sky scatters blue light more than red light.",
    "There are 3 apples. Each costs 2 dollars, so together they cost 3 * 2 = 6.",
    "It is a pleasant town of 4000 people. You should go there because the sea is near and the food is good.",
    "Step 1: open the box. Step 2: take out the parts. Then step 3: put them together.",
    "1. Wash the rice.\n2. Boil 2 cups of water.\n3. Then add the rice and wait 10 minutes.",
    "",
]


@pytest.mark.parametrize("reply", GUESSED)
def test_the_answer_comes_first(reply: str) -> None:
    assert answer_first(reply)


@pytest.mark.parametrize("reply", REASONED)
def test_the_reasoning_comes_first_or_there_is_none(reply: str) -> None:
    assert answer_first(reply) is None


def test_a_known_answer_is_what_counts() -> None:
    reply = "It is 6. Three apples cost 2 each, so we need 3 times the price of one of them."
    assert answer_first(reply) is None
    found = answer_first(reply, answer="6")
    assert found is not None and (found.stated, found.value) == ("It is 6.", "6")
    assert answer_first(reply, answer="7") is None


def test_rows_are_named_by_index_and_tools_may_answer_at_once() -> None:
    def row(content: object) -> dict[str, object]:
        return {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": content}]}

    call = [{"type": "python", "text": "1+1"}, {"type": "output", "text": "2"}, {"type": "text", "text": GUESSED[1]}]
    rows = [row(REASONED[0]), row(GUESSED[0]), row(call), row(GUESSED[1])]
    assert [(i, f.value) for i, f in answers_first(rows)] == [(1, "3"), (3, "72")]


def test_on_school_mathematics_turned_round(data: Path) -> None:
    """GSM8K reasons before it answers; with the answer in front most must be found, nearly all where it is known."""
    lines = (data / "eval/gsm8k_train.jsonl").read_text().split("\n")[:1500]
    right = turned = known = 0
    for line in lines:
        solution, _, answer = json.loads(line)["answer"].partition("\n#### ")
        solution = re.sub(r"<<.*?>>", "", solution)
        right += answer_first(solution) is not None
        backwards = f"The answer is {answer}. {solution}"
        turned += answer_first(backwards) is not None
        known += answer_first(backwards, answer) is not None
    assert right <= 0.005 * len(lines) and turned >= 0.88 * len(lines), (right, turned)
    assert known >= 0.96 * len(lines), known


def test_on_instructions_it_seldom_speaks(data: Path) -> None:
    with gzip.open(data / "chat/alpaca_subset.jsonl.gz", "rt") as f:
        replies = [json.loads(line)["output"] for line in f]
    found = [r for r in replies if answer_first(r)]
    assert len(found) <= 0.01 * len(replies), found[:5]
