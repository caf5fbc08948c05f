"""Arithmetic with worked steps, as written on paper: column by column from the right, one line a column.

    47 + 38    7+8+0=15      last digits and the carry that comes in; the result has always two digits:
               4+3+1=08      the carry that goes out, and the digit of the answer
               The answer is 85.

A model with few parameters does not add in its head, but each of these lines needs only the line before and two digits
of the question ("models need tokens to think"). Every line has the same length and every token in it one meaning, which
is what lets a model of a few million parameters learn them, and there are 8 tokens a column, since roll-outs of
reinforcement learning pay for each.
"""

from __future__ import annotations

from math import prod
from random import Random
from typing import Literal

from pydantic import model_validator

from llmctl.recipe import Settings
from llmctl.verify.forms import Form
from llmctl.verify.item import Item, conversation, draw_side, held_out

_ASK = ("What is {}?", "Compute {}.", "How much is {}?", "Calculate {}.", "{} = ?")


class SumsOptions(Settings):
    """What sums look like."""

    digits: tuple[int, int] = (2, 3)
    """Fewest and most digits of a number. Each further digit is one more line to get right, so accuracy falls."""
    operators: list[Literal["+", "-", "*"]] = ["+"]
    """Which operators to draw from. The second number of `*` has one digit; `-` never goes below zero."""
    terms: int = 2
    """How many numbers `+` adds up (2 to 9)."""
    form: Form = "answer"
    """How the answer is written: `answer` (The answer is 85.), `hashes` (#### 85), `boxed` (\\boxed{85}) or `think`
    (<think>steps</think><answer>85</answer>, as DeepSeek-R1 does)."""

    @model_validator(mode="after")
    def _possible(self) -> SumsOptions:
        if not 1 <= self.digits[0] <= self.digits[1] <= 12:
            raise ValueError(f"digits {list(self.digits)} should be [fewest, most], between 1 and 12")
        if not 2 <= self.terms <= 9:
            raise ValueError("terms should be between 2 and 9")
        if not self.operators:
            raise ValueError("operators should name at least one of + - *")
        return self


def draw(rng: Random, heldout: bool, options: SumsOptions) -> Item:
    """One sum from the wanted side of the split. A sum and the same sum turned round are on the same side."""
    numbers, sign = draw_side(lambda: _numbers(rng, options), heldout)
    question = rng.choice(_ASK).format(f" {sign} ".join(map(str, numbers)))
    answer, steps = worked(numbers, sign)
    messages = conversation(question, f"{steps}\nThe answer is {answer}.")
    return Item("sums", question, str(answer), "number", messages, held_out(_key(numbers, sign)), group=sign)


def worked(numbers: list[int], sign: str, slip: int | None = None) -> tuple[int, str]:
    """(answer, its lines). With `slip`, the carry out of that column (0 = the rightmost) is forgotten."""
    columns = {"+": _add, "-": _subtract, "*": _multiply}[sign]
    lines, found, carry = [], "", 0
    for i in range(max(len(str(n)) for n in numbers)):
        line, carry, digit = columns([_digit(n, i) for n in numbers], numbers[-1], carry)
        lines.append(line)
        found = f"{digit}{found}"
        carry = 0 if i == slip else carry
    return int(f"{carry}{found}" if sign != "-" else found), "\n".join(lines)


def carries(numbers: list[int], sign: str) -> list[int]:
    """The columns whose carry is not zero, so that forgetting it makes the answer wrong."""
    right = worked(numbers, sign)[0]
    width = max(len(str(n)) for n in numbers)
    return [i for i in range(width) if worked(numbers, sign, slip=i)[0] != right]


def value(numbers: list[int], sign: str) -> int:
    """The sum by the machine's own arithmetic, to check the worked one against."""
    if sign == "+":
        return sum(numbers)
    return prod(numbers) if sign == "*" else numbers[0] - sum(numbers[1:])


def _add(digits: list[int], _: int, carry: int) -> tuple[str, int, int]:
    total = sum(digits) + carry
    return f"{'+'.join(map(str, digits))}+{carry}={total:02d}", total // 10, total % 10


def _subtract(digits: list[int], _: int, borrow: int) -> tuple[str, int, int]:
    """The line shows whether ten is borrowed: 17-8-0=9, but 07-3-0=4."""
    a, b = digits
    ten = int(a - b - borrow < 0)
    digit = 10 * ten + a - b - borrow
    return f"{ten}{a}-{b}-{borrow}={digit}", ten, digit


def _multiply(digits: list[int], by: int, carry: int) -> tuple[str, int, int]:
    total = digits[0] * by + carry
    return f"{digits[0]}*{by}+{carry}={total:02d}", total // 10, total % 10


def _digit(number: int, place: int) -> int:
    return number // 10**place % 10


def _numbers(rng: Random, options: SumsOptions) -> tuple[str, tuple[list[int], str]]:
    sign = rng.choice(options.operators)
    count = options.terms if sign == "+" else 2
    numbers = [_number(rng, rng.randint(*options.digits)) for _ in range(count)]
    if sign == "*":
        numbers[1] = rng.randint(2, 9)
    elif sign == "-":
        numbers.sort(reverse=True)
    return _key(numbers, sign), (numbers, sign)


def _number(rng: Random, digits: int) -> int:
    return rng.randrange(10 ** (digits - 1) if digits > 1 else 1, 10**digits)


def _key(numbers: list[int], sign: str) -> str:
    ordered = numbers if sign == "-" else sorted(numbers)
    return f"{sign} {' '.join(map(str, ordered))}"
