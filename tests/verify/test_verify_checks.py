"""Judging replies, hostile ones among them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.verify import CHECKS, check
from llmctl.verify.checks import last_words, normal_number


def row(answer: str, how: str) -> dict[str, str]:
    return {"answer": answer, "check": how}


@pytest.mark.parametrize(
    ("reply", "correct", "formatted"),
    [
        ("7+8+0=15\n4+3+1=08\nThe answer is 85.", True, True),
        ("The answer is 85", True, True),
        ("so #### 85", True, True),
        ("<think>hm</think><answer>85</answer>", True, True),
        ("The answer is 85.0.", True, True),
        ("The answer is $85.", True, True),
        ("The answer is 085.", True, True),
        ("85", True, False),
        ("it is 85, I think", True, False),
        ("The answer is 86.", False, True),
        ("The answer is -85.", False, True),
        ("85 + 1 = 86", False, False),
        ("The answer is 84. The answer is 85.", True, False),
        ("The answer is 85. The answer is 84.", False, False),
        ("The answer is 84.\nThe answer is 85.", True, False),
        ("The answer is 85 or 86.", False, False),
        ("The answer is 85. Or is it?", True, False),
        ("The answer is 85x.", False, False),
        ("The answer is eighty-five.", False, False),
        ("The answer is \u0668\u0665.", False, False),  # Arabic-Indic digits
        ("The answer is ", False, False),
        ("the the the the the", False, False),
        ("", False, False),
    ],
)
def test_number(reply: str, correct: bool, formatted: bool) -> None:
    verdict = check(row("85", "number"), reply)
    assert (verdict.correct, verdict.formatted) == (correct, formatted)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("1,050.50", "1050.5"),
        ("-0", "0"),
        ("+7", "7"),
        ("007", "7"),
        ("9.90", "9.9"),
        ("$3", "3"),
        ("-12.", "-12"),
        ("1" * 61, None),
        ("1e5", None),
        ("", None),
        ("2**9**9", None),
        ("--3", None),
    ],
)
def test_normal_number(text: str, normal: str | None) -> None:
    assert normal_number(text) == normal


@pytest.mark.parametrize(
    ("reply", "correct"),
    [
        ("I don't know who Orson Kovacs is.", True),
        ("I have never heard of Orson Kovacs.", True),
        ("I do not know. Can you tell me more?", True),
        ("Orson Kovacs is a painter.", False),
        ("I don't know who he is. He was a painter from France.", False),
        ("He is a painter. I don't know more.", False),
        ("I don't know." + " I don't know." * 50, False),
        ("the the the the", False),
        ("", False),
    ],
)
def test_refusal(reply: str, correct: bool) -> None:
    assert check(row("Orson Kovacs", "refusal"), reply).correct is correct


@pytest.mark.parametrize(
    ("reply", "correct"),
    [
        ("Paris is the Capital of  France.", True),
        ("Paris is the capital of Frances.", False),
        ("I don't know the capital of France.", False),
        ("capital of Spain, capital of Italy, " * 20 + "capital of France.", False),
        ("", False),
    ],
)
def test_contains(reply: str, correct: bool) -> None:
    assert check(row("capital of France", "contains"), reply).correct is correct


@pytest.mark.parametrize(
    ("reply", "correct", "formatted"),
    [
        ('The answer is "yrrebwarts".', True, True),
        ("The answer is yrrebwarts.", True, True),
        ("yrrebwarts", True, False),
        ('The answer is "strawberry".', False, True),
        ("", False, False),
    ],
)
def test_exact(reply: str, correct: bool, formatted: bool) -> None:
    verdict = check(row("yrrebwarts", "exact"), reply)
    assert (verdict.correct, verdict.formatted) == (correct, formatted)


def test_only_the_words_after_the_tools_count() -> None:
    call = "<|search_start|>town X<|search_end|><|output_start|>X: founded in 1811.<|output_end|>"
    assert check(row("1811", "contains"), call + "X was founded in 1811.").correct
    assert not check(row("1811", "contains"), call + "X was founded in 1812.").correct
    assert not check(row("1811", "contains"), call).correct
    assert last_words("abc <|python_start|>print(1)") == "abc"
    assert not check(row("", "contains"), "").correct


def test_an_unknown_check_is_the_persons_mistake() -> None:
    with pytest.raises(UserError, match="number, exact, contains, refusal"):
        check({"answer": "1", "check": "eval"}, "1")
    with pytest.raises(UserError):
        check({"check": "number"}, "1")


NASTY = [
    "9" * 1_000_000,
    "1," * 500_000,
    "-" * 500_000,
    "The answer is " * 100_000,
    "<answer>" * 200_000,
    "#### " * 200_000,
    "The answer is 9**9**9**9.",
    "The answer is __import__('os').system('false').",
    "I don't know" + " " * 500_000,
    "a." * 300_000,
    "\x00\x1b[2J\ud800",
    "<|output_end|>" * 100_000,
    "1.1" * 300_000,
]


@pytest.mark.parametrize("how", CHECKS)
@pytest.mark.parametrize("reply", NASTY, ids=range(len(NASTY)))
def test_hostile_replies_are_judged_wrong(how: str, reply: str) -> None:
    """Each of these hung or raised in a naive form of the checks (big-int conversion, backtracking, eval)."""
    assert not check(row("85", how if how != "refusal" else "number"), reply, run=lambda _: "").correct


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400), st.sampled_from(CHECKS), st.text(max_size=20))
def test_any_reply_gets_a_verdict(reply: str, how: str, answer: str) -> None:
    verdict = check(row(answer, how), reply, run=lambda _: "")
    assert not (verdict.correct and not reply.strip())
