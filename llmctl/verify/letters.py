"""Counting: how many r in strawberry, how many dots in a row. A model sees tokens and not letters.

The worked solution spells the word and keeps the count, one letter a step (s0 t0 r1 a1 w1 b1 e1 r2 r3 y3), so that no
step needs more than the letter at hand and the count before it.
"""

from __future__ import annotations

from random import Random
from typing import Literal

from pydantic import Field

from llmctl.recipe import Settings
from llmctl.verify.forms import Form
from llmctl.verify.item import Item, conversation, draw_side
from llmctl.verify.vocabulary import word

_ASK = (
    'How many times does the letter "{0}" appear in "{1}"?',
    'How many "{0}" are in the word "{1}"?',
    'Count the letter "{0}" in the word "{1}".',
    'How many {0}\'s are in "{1}"?',
)
_ASK_MARKS = ("How many {0} are there? {1}", "Count the {0}: {1}", "How many {0} are in this line? {1}")
_MARKS = {".": "dots", "*": "stars", "-": "dashes", "#": "hashes", "+": "plus signs"}


class LettersOptions(Settings):
    """What is counted."""

    tasks: list[Literal["letters", "marks"]] = Field(["letters", "letters", "letters", "marks"], min_length=1)
    """Which sorts of questions to draw from; one that stands twice is drawn twice as often. `marks` are dots, stars
    and the like in a row."""
    longest: int = Field(30, ge=2, le=200)
    """The longest row of marks."""
    form: Form = "answer"
    """How the answer is written: `answer`, `hashes`, `boxed` or `think`."""


def draw(rng: Random, heldout: bool, options: LettersOptions) -> Item:
    """One question. Held out are words, and rows of a mark by their length."""
    task = rng.choice(options.tasks)
    text, counted, question = draw_side(lambda: _letter(rng) if task == "letters" else _marks(rng, options), heldout)
    answer = text.count(counted)
    reply = f"{spelled_with_count(text, counted)}\nThe answer is {answer}."
    return Item("letters", question, str(answer), "number", conversation(question, reply), heldout, group=task)


def spelled_with_count(text: str, counted: str) -> str:
    """`s0 t0 r1 a1 ...`: each letter with how many of the wanted ones there were up to it."""
    return " ".join(f"{c}{text[: i + 1].count(counted)}" for i, c in enumerate(text))


def _letter(rng: Random) -> tuple[str, tuple[str, str, str]]:
    text = word(rng)
    letter = rng.choice(text if rng.random() < 0.85 else "abcdefghijklmnopqrstuvwxyz")
    return text, (text, letter, rng.choice(_ASK).format(letter, text))


def _marks(rng: Random, options: LettersOptions) -> tuple[str, tuple[str, str, str]]:
    mark, count = rng.choice(list(_MARKS)), rng.randint(1, options.longest)
    return f"{count} {_MARKS[mark]}", (mark * count, mark, rng.choice(_ASK_MARKS).format(_MARKS[mark], mark * count))
