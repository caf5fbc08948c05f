"""Which is larger, 9.11 or 9.9? Models read version numbers and dates, and so say 9.11.

The worked solution writes both to the same length and compares them digit by digit from the left:

    9.11 9.90      padded
    9=9 1<9        the first difference decides
    The answer is 9.9.
"""

from __future__ import annotations

from random import Random

from pydantic import model_validator

from llmctl.recipe import Settings
from llmctl.verify.forms import Form
from llmctl.verify.item import Item, conversation, draw_side

_ASK = (
    "Which is {0}, {1} or {2}?",
    "Which number is {0}: {1} or {2}?",
    "What is {0}, {1} or {2}?",
    "{1} and {2}: which is {0}?",
)


class DecimalsOptions(Settings):
    """Which numbers are compared."""

    places: tuple[int, int] = (1, 3)
    """Fewest and most digits behind the point."""
    whole: int = 99
    """The largest part before the point."""
    same_whole: float = 0.8
    """How often both have the same part before the point. Only then do the decimals decide."""
    form: Form = "answer"
    """How the answer is written: `answer`, `hashes`, `boxed` or `think`."""

    @model_validator(mode="after")
    def _possible(self) -> DecimalsOptions:
        if not 1 <= self.places[0] <= self.places[1] <= 9:
            raise ValueError(f"places {list(self.places)} should be [fewest, most], between 1 and 9")
        if not 1 <= self.whole <= 10**6 or not 0 <= self.same_whole <= 1:
            raise ValueError("whole should be between 1 and 1000000, same_whole between 0 and 1")
        return self


def draw(rng: Random, heldout: bool, options: DecimalsOptions) -> Item:
    """One comparison, held out by its two numbers. `group`: "trap" where the longer one is the smaller one."""
    a, b = draw_side(lambda: _pair(rng, options), heldout)
    want_larger = rng.random() < 0.5
    steps, a_is_larger = compared(a, b)
    answer = a if a_is_larger == want_larger else b
    question = rng.choice(_ASK).format("larger" if want_larger else "smaller", a, b)
    longer_is_larger = a_is_larger == (len(_places(a)) > len(_places(b)))
    group = "plain" if len(_places(a)) == len(_places(b)) or longer_is_larger else "trap"
    messages = conversation(question, f"{steps}\nThe answer is {answer}.")
    return Item("decimals", question, answer, "number", messages, heldout, group=group)


def compared(a: str, b: str) -> tuple[str, bool]:
    """(the padded numbers and the comparison up to the first difference, whether the first is larger)."""
    width = max(len(_places(a)), len(_places(b)))
    left, right = (f"{n.partition('.')[0]}.{_places(n):0<{width}}" for n in (a, b))
    parts = [(int(x.partition(".")[0]), int(y.partition(".")[0])) for x, y in [(left, right)]]
    parts += [(int(x), int(y)) for x, y in zip(_places(left), _places(right), strict=True)]
    signs = []
    for x, y in parts:
        signs.append(f"{x}{'=' if x == y else '<' if x < y else '>'}{y}")
        if x != y:
            break
    return f"{left} {right}\n{' '.join(signs)}", ">" in signs[-1]


def _pair(rng: Random, options: DecimalsOptions) -> tuple[str, tuple[str, str]]:
    while True:
        whole = rng.randint(0, options.whole)
        other = whole if rng.random() < options.same_whole else rng.randint(0, options.whole)
        a, b = _number(rng, whole, options), _number(rng, other, options)
        if float(a) != float(b):
            break
    # The key of the python tool's comparisons, so that a pair is on one side of the split in both.
    return " ".join(sorted((a, b), key=lambda n: (len(n), n))), (a, b)


def _number(rng: Random, whole: int, options: DecimalsOptions) -> str:
    """Never with a last 0, which would be the same number in two ways."""
    places = rng.randint(*options.places)
    return f"{whole}.{''.join(rng.choice('0123456789') for _ in range(places - 1))}{rng.randint(1, 9)}"


def _places(number: str) -> str:
    return number.partition(".")[2]
