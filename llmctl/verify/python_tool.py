"""What a model that sees tokens and not letters gets wrong, and one line of Python gets right.

Counting letters, spelling backwards, lengths of words, large products, 9.11 against 9.9. Words stand in quotation marks
in the question, the code and the answer, so that they are the same tokens in all three and can simply be copied.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal

from llmctl.recipe import Settings
from llmctl.verify import invention
from llmctl.verify.invention import words
from llmctl.verify.item import Item, conversation, draw_side

WORDS = words(
    "strawberry banana apple orange ubiquitous mississippi letter bottle window garden mountain river summer winter",
    "kitchen teacher student picture machine language computer keyboard paper pencil happiness success committee",
    "balloon coffee cheese butter pepper carrot tomato potato onion lettuce cabbage parallel address accommodation",
    "bookkeeper assess possess umbrella elephant giraffe kangaroo alligator butterfly dragonfly grasshopper library",
    "history science physics chemistry biology music theatre concert violin guitar trumpet planet rocket satellite",
    "telescope microscope triangle rectangle circle square number fraction decimal equation weather thunder lightning",
    "rainbow sunshine midnight yesterday tomorrow birthday holiday adventure journey village country continent ocean",
)

Task = Literal["count", "reverse", "length", "multiply", "compare"]


class PythonOptions(Settings):
    """Questions that need code."""

    tasks: list[Task] = ["count", "reverse", "length", "multiply", "compare"]
    """Which sorts of questions to draw from."""
    digits: tuple[int, int] = (3, 5)
    """Fewest and most digits of a factor. More than the model could work out in its head."""


def draw(rng: Random, heldout: bool, options: PythonOptions) -> Item:
    """A question with the code that answers it. Held out are words, products and pairs of numbers."""
    task = rng.choice(options.tasks)
    question, code, output = draw_side(lambda: _TASKS[task](rng, options), heldout)
    number = task != "reverse"
    said = output if number else f'"{output}"'
    reply = [
        {"type": "python", "text": code},
        {"type": "output", "text": output},
        {"type": "text", "text": f"The answer is {said}."},
    ]
    check = "number" if number else "exact"
    return Item("python", question, output, check, conversation(question, reply), heldout, group=task)


_Drawn = tuple[str, tuple[str, str, str]]  # what is held out, (question, code, its output)


def _count(rng: Random, _: PythonOptions) -> _Drawn:
    word = _word(rng)
    letter = rng.choice(word if rng.random() < 0.8 else "abcdefghijklmnopqrstuvwxyz")
    ask = rng.choice(
        (
            'How many times is the letter "{1}" in "{0}"?',
            'Count the letter "{1}" in "{0}".',
            'How often does "{1}" occur in the word "{0}"?',
        )
    ).format(word, letter)
    return word, (ask, f'print("{word}".count("{letter}"))', str(word.count(letter)))


def _reverse(rng: Random, _: PythonOptions) -> _Drawn:
    word = _word(rng)
    ask = rng.choice(('Spell "{}" backwards.', 'Reverse the word "{}".', 'What is "{}" spelled backwards?'))
    return word, (ask.format(word), f'print("{word}"[::-1])', word[::-1])


def _length(rng: Random, _: PythonOptions) -> _Drawn:
    word = _word(rng)
    ask = rng.choice(('How many letters has "{}"?', 'How long is the word "{}"?', 'Count the letters of "{}".'))
    return word, (ask.format(word), f'print(len("{word}"))', str(len(word)))


def _multiply(rng: Random, options: PythonOptions) -> _Drawn:
    a, b = (rng.randrange(10 ** (d - 1), 10**d) for d in (rng.randint(*options.digits) for _ in range(2)))
    ask = rng.choice(("What is {} * {}?", "Compute {} * {}.", "Multiply {} by {}.", "How much is {} times {}?"))
    key = f"* {min(a, b)} {max(a, b)}"
    return key, (ask.format(a, b), f"print({a} * {b})", str(a * b))


def _compare(rng: Random, _: PythonOptions) -> _Drawn:
    """Like 9.11 and 9.9: the same whole part, and the one with fewer decimals is the larger about half the time."""
    whole = rng.randint(0, 99)
    short, long = f"{whole}.{rng.randint(1, 9)}", f"{whole}.{rng.randint(1, 9)}{rng.randint(1, 9)}"
    a, b = (short, long) if rng.random() < 0.5 else (long, short)
    larger = rng.random() < 0.5
    asks = ("Which is {}, {} or {}?", "Which number is {}: {} or {}?", "What is {}, {} or {}?")
    ask = rng.choice(asks).format("larger" if larger else "smaller", a, b)
    function = "max" if larger else "min"
    output = str((max if larger else min)(float(a), float(b)))
    return f"{short} {long}", (ask, f"print({function}({a}, {b}))", output)


def _word(rng: Random) -> str:
    return rng.choice(WORDS) if rng.random() < 0.5 else invention.word(rng)


_TASKS: dict[str, Callable[[Random, PythonOptions], _Drawn]] = {
    "count": _count,
    "reverse": _reverse,
    "length": _length,
    "multiply": _multiply,
    "compare": _compare,
}
