"""Spelling out and spelling backwards: one step a letter, since a model sees tokens and not letters."""

from __future__ import annotations

import re
from random import Random
from typing import Literal

from pydantic import Field

from llmctl.recipe import Settings
from llmctl.verify.forms import Form
from llmctl.verify.item import Item, conversation, draw_side
from llmctl.verify.vocabulary import word

_ASK = {
    "backwards": (
        'Spell "{}" backwards.',
        'Reverse the word "{}".',
        'Write "{}" backwards.',
        'What is "{}" spelled backwards?',
    ),
    "out": ('Spell out "{}".', 'Spell the word "{}" letter by letter.', 'How do you spell "{}"?'),
}
_SEPARATORS = re.compile(r"[\s,.\-]+")


class SpellingOptions(Settings):
    """What is spelled."""

    tasks: list[Literal["backwards", "out"]] = Field(["backwards", "out"], min_length=1)
    """Which sorts of questions to draw from: the word backwards, or its letters with dashes between them."""
    form: Form = "answer"
    """How the answer is written: `answer`, `hashes`, `boxed` or `think`."""


def draw(rng: Random, heldout: bool, options: SpellingOptions) -> Item:
    """One question. Held out are words."""
    task = rng.choice(options.tasks)
    text = draw_side(lambda: (w := word(rng), w), heldout)
    question = rng.choice(_ASK[task]).format(text)
    if task == "out":
        answer, steps, check = "-".join(text), f"{' '.join(text)}\n", "spelled"
    else:
        answer, steps, check = text[::-1], f"{' '.join(text)}\n{' '.join(text[::-1])}\n", "exact"
    messages = conversation(question, f"{steps}The answer is {answer}.")
    return Item("spelling", question, answer, check, messages, heldout, group=task)


def letters_of(said: str) -> str | None:
    """The letters of "S - t, r", which are "str"; None where it is no list of single letters."""
    found = _SEPARATORS.sub(" ", said[:400]).strip("\"'` ").split()
    return "".join(found).casefold() if found and all(len(letter) == 1 for letter in found) else None
