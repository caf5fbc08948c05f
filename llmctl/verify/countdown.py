"""Countdown: reach a target with given numbers. Searching is the only way, which makes reasoning worth its tokens.

The task on which R1-Zero was first reproduced on small models (TinyZero). The worked solution is a search: some tries
that miss, each worked out and rejected, then one that hits. The check evaluates the stated expression; any is right
that reaches the target with the numbers as allowed.

    Reach 98 with 44, 19, 35.    44-19=25, 25+35=60, no
                                 44+19=63, 63+35=98, yes
                                 The answer is (44+19)+35.
"""

from __future__ import annotations

import re
from random import Random

from pydantic import model_validator

from llmctl.errors import UserError
from llmctl.recipe import Settings
from llmctl.verify.expression import evaluate
from llmctl.verify.forms import Form
from llmctl.verify.item import Item, conversation, draw_side

_ASK = (
    "Reach {0} with the numbers {1}. {2}",
    "Using the numbers {1}, make an expression that equals {0}. {2}",
    "Make {0} from {1}. {2}",
)
_RULES = {
    True: "Use every number exactly once.",
    False: "Use each number at most once.",
}
_EXPRESSION = re.compile(r"[-+*/() 0-9]{1,200}", re.ASCII)
_ALIKE = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-", "[": "(", "]": ")"})

_DRAWS = 20_000

_Term = tuple[int, str]  # a value and how it was written


class CountdownOptions(Settings):
    """What countdown problems look like."""

    numbers: tuple[int, int] = (3, 4)
    """Fewest and most numbers (2 to 6). Each further one makes the search about ten times as wide."""
    largest: int = 99
    """The largest number that is given."""
    target: tuple[int, int] = (1, 100)
    """Smallest and largest target."""
    all: bool = True
    """Whether every number has to be used. False is the rule of the television game: each at most once."""
    tries: tuple[int, int] = (0, 3)
    """Fewest and most tries that miss, shown in the worked solution before the one that hits."""
    form: Form = "answer"
    """How the answer is written: `answer`, `hashes`, `boxed` or `think` (the search between <think> tags)."""

    @model_validator(mode="after")
    def _possible(self) -> CountdownOptions:
        if not 2 <= self.numbers[0] <= self.numbers[1] <= 6:
            raise ValueError(f"numbers {list(self.numbers)} should be [fewest, most], between 2 and 6")
        if not 2 <= self.largest <= 9999:
            raise ValueError("largest should be between 2 and 9999")
        if not 1 <= self.target[0] <= self.target[1] <= 99_999:
            raise ValueError(f"target {list(self.target)} should be [smallest, largest], between 1 and 99999")
        if not 0 <= self.tries[0] <= self.tries[1] <= 20:
            raise ValueError(f"tries {list(self.tries)} should be [fewest, most], between 0 and 20")
        return self


def draw(rng: Random, heldout: bool, options: CountdownOptions) -> Item:
    """A solvable problem: the target is what some expression of the numbers gives. Held out by numbers and target."""
    numbers, steps, (target, written) = draw_side(lambda: _solvable(rng, options), heldout)
    tries = (_miss(rng, numbers, target) for _ in range(rng.randint(*options.tries)))
    lines = [*filter(None, tries), f"{', '.join(steps)}, yes"]
    question = rng.choice(_ASK).format(target, ", ".join(map(str, numbers)), _RULES[options.all])
    reply = "\n".join([*lines, f"The answer is {_bare(written)}."])
    answer = f"{target} from {'all of ' if options.all else ''}{' '.join(map(str, numbers))}"
    return Item("countdown", question, answer, "countdown", conversation(question, reply), heldout, str(len(numbers)))


def solves(answer: str, expression: str) -> bool:
    """Whether `expression` reaches the target of `answer`, e.g. "98 from all of 44 19 35". Never raises."""
    target, _, allowed = answer.partition(" from ")
    every, numbers = allowed.startswith("all of "), re.findall(r"[0-9]+", allowed)
    used = re.findall(r"[0-9]+", expression)
    if not _EXPRESSION.fullmatch(expression) or any(used.count(n) > numbers.count(n) for n in set(used)):
        return False
    if not used or (every and len(used) != len(numbers)):
        return False
    value = evaluate(expression)
    return value is not None and target.isascii() and target.isdigit() and value == int(target)


def normal_expression(said: str) -> str:
    """What was stated, in plain signs, without a final stop, quotes, and a closing `= 98`."""
    plain = said[:400].translate(_ALIKE).replace("\\times", "*").replace("\\div", "/").replace("\\cdot", "*")
    left, sign, right = plain.strip().rstrip(".").strip("$`\"' ").partition("=")
    return (right if sign and re.fullmatch(r"\s*[0-9]+\s*", left) else left).strip()


def _solvable(rng: Random, options: CountdownOptions) -> tuple[str, tuple[list[int], list[str], _Term]]:
    for _ in range(_DRAWS):
        numbers = [rng.randint(1, options.largest) for _ in range(rng.randint(*options.numbers))]
        some = numbers if options.all else rng.sample(numbers, rng.randint(2, len(numbers)))
        steps, (target, written) = _combine(rng, some)
        if options.target[0] <= target <= options.target[1] and target not in numbers:
            rng.shuffle(numbers)
            return f"countdown {sorted(numbers)} {target}", (numbers, steps, (target, written))
    raise UserError("these numbers hardly ever reach such a target", fix="widen countdown's target, largest or numbers")


def _combine(rng: Random, numbers: list[int]) -> tuple[list[str], _Term]:
    """Two numbers at a time become one, till one is left: (the steps, the last value and its expression)."""
    terms: list[_Term] = [(n, str(n)) for n in numbers]
    steps = []
    while len(terms) > 1:
        (a, left), (b, right) = sorted((terms.pop(rng.randrange(len(terms))) for _ in range(2)), reverse=True)
        sign = rng.choice([s for s in "+-*/" if _whole(a, b, s)])
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[sign]
        steps.append(f"{a}{sign}{b}={value}")
        terms.append((value, f"({left}{sign}{right})"))
    return steps, terms[0]


def _whole(a: int, b: int, sign: str) -> bool:
    """Whether the step stays among whole numbers from 1 to 99,999, as in the game."""
    if sign == "/":
        return b > 1 and a % b == 0
    return a > b if sign == "-" else sign == "+" or (b > 1 and a * b <= 99_999)


def _miss(rng: Random, numbers: list[int], target: int) -> str:
    """A try that misses; empty where there is none to be found, as for 2 from 1 and 1."""
    for _ in range(20):
        steps, (value, _) = _combine(rng, numbers)
        if value != target:
            return f"{', '.join(steps)}, no"
    return ""


def _bare(written: str) -> str:
    """Without the outermost brackets, which every combination puts on."""
    return written[1:-1] if written.startswith("(") else written
