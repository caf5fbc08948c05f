"""Answers as mathematics writes them: \\boxed{\\frac{2}{3}}, compared by value and not by spelling.

`equivalent` knows what the answers of MATH (arXiv 2103.03874) and of reasoning models mostly are: whole numbers,
decimals, fractions, percentages, roots, powers, pi, tuples, intervals and sets. What it cannot read it compares as
text, after MATH's own clean-up. It does not simplify algebra (x^2-1 against (x-1)(x+1) is judged wrong): SymPy would,
but its readers hand text to `eval`, and some inputs of twenty characters keep it busy for hours.

Problems come from a file in MATH's form, or are made by code: arithmetic with fractions, worked out.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd, lcm
from random import Random
from typing import Literal

from pydantic import Field

from llmctl.errors import UserError
from llmctl.recipe import Settings
from llmctl.verify.expression import Value, evaluate, same
from llmctl.verify.forms import Form, boxed
from llmctl.verify.item import Item, conversation, draw_side
from llmctl.verify.reading import side

_LONGEST = 400
_SPACING = re.compile(r"\\[!,;:> ]|\\q?quad|\\left|\\right|\\displaystyle|[$~]|\^\{?\\circ\}?|\\degree|\\%|%")
_WORDS = re.compile(r"\\(?:text|textbf|mbox|mathrm|mathbf|operatorname)[ ]?\{([^{}]{0,100})\}")
_THOUSANDS = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?", re.ASCII)
_ASSIGNED = re.compile(r"[A-Za-z](?:_[0-9])?\s*(?:=|\\in)\s*")
_SHORT_FRACTION = re.compile(r"\\frac\s*([0-9])\s*([0-9])", re.ASCII)
_HALF_SHORT_FRACTION = re.compile(r"\\frac\s*([0-9])\s*(?=\{)", re.ASCII)
_MIXED = re.compile(r"(?<![0-9.])([0-9]{1,20})\s*(frac\s*\([0-9]{1,20}\)\s*\([0-9]{1,20}\))", re.ASCII)
_SIGNS = {
    "\\cdot": "*",
    "\\times": "*",
    "\\div": "/",
    "\\pi": " pi ",
    "\\sqrt": " sqrt",
    "\\frac": " frac",
    "\u2212": "-",
    "\u03c0": " pi ",
}


class MathOptions(Settings):
    """Where the problems are from."""

    file: str = ""
    """A file in MATH's form (.jsonl or .jsonl.gz with `problem` and `solution`, which boxes the answer, and perhaps
    `answer`). Empty: arithmetic with fractions, made by code."""
    tasks: list[Literal["simplify", "add", "subtract", "multiply", "divide"]] = Field(
        ["simplify", "add", "subtract", "multiply", "divide"], min_length=1
    )
    """Which sorts of made problems to draw from."""
    largest: int = Field(12, ge=3, le=1000)
    """The largest numerator and denominator of made problems."""
    form: Form = "boxed"
    """How the answer is written: `boxed` (\\\\boxed{72}, the custom of mathematics), `answer`, `hashes` or `think`."""


def draw(rng: Random, heldout: bool, options: MathOptions) -> Item:
    """One problem, held out by its question or, where it is made, by its numbers."""
    if options.file:
        return _published(rng, heldout, options.file)
    task, a, b = draw_side(lambda: _numbers(rng, options), heldout)
    question, steps, value = _worked(task, a, b)
    answer = latex(value)
    messages = conversation(question, f"{steps}\nThe answer is {answer}.")
    return Item("math", question, answer, "math", messages, heldout, group=task)


def equivalent(said: str, answer: str) -> bool:
    """Whether two answers are the same. Never raises; bounded by reading at most 400 characters of each."""
    if max(len(said), len(answer)) > _LONGEST:
        return False
    a, b = _clean(said), _clean(answer)
    if not a or not b:
        return False
    if a.replace(" ", "") == b.replace(" ", ""):
        return True
    left, right = _value(a), _value(b)
    if left is not None or right is not None:
        return left is not None and right is not None and same(left, right)
    return _same_lists(a, b)


def latex(value: Fraction) -> str:
    """\\frac{2}{3}, or 4."""
    sign, value = "-" if value < 0 else "", abs(value)
    return sign + (
        str(value.numerator) if value.denominator == 1 else f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
    )


def _clean(text: str) -> str:
    """Without what says nothing about the value: dollars, spacing, units in \\text, `x =`, a final stop."""
    text = text.strip().rstrip(".").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = _SPACING.sub(lambda m: "" if m[0] != "\\ " else " ", text)
    words = _WORDS.sub("", text).strip()
    text = words or _WORDS.sub(r"\1", text)  # a unit says nothing, unless there is nothing else
    assigned = _ASSIGNED.match(text.strip())
    text = text.strip()[assigned.end() :] if assigned else text
    return " ".join(text.split()).rstrip(".").strip()


def _value(text: str) -> Value | None:
    """The number that a cleaned text is, or None."""
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    text = _HALF_SHORT_FRACTION.sub(r"\\frac{\1}", _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text))
    text = re.sub(r"\\sqrt\s*([0-9])", r"\\sqrt{\1}", text)
    if "\\{" in text or "\\sqrt[" in text:
        return None
    for latex_sign, plain in _SIGNS.items():
        text = text.replace(latex_sign, plain)
    text = text.replace("{", "(").replace("}", ")")
    return evaluate(_MIXED.sub(r"(\1+\2)", text))


def _same_lists(a: str, b: str) -> bool:
    """(1, 2), [0, 1), \\{1, 2\\} or 1, 2: the same brackets and equal members; sets and bare lists in any order."""
    (opens, closes, left), (opens2, closes2, right) = _members(a), _members(b)
    if (opens, closes) != (opens2, closes2) or len(left) != len(right) or len(left) < 2:
        return False
    if opens in ("", "{"):
        rest = list(right)
        for member in left:
            match = next((i for i, other in enumerate(rest) if _same_member(member, other)), None)
            if match is None:
                return False
            rest.pop(match)
        return True
    return all(_same_member(x, y) for x, y in zip(left, right, strict=True))


def _same_member(a: str, b: str) -> bool:
    left, right = _value(a), _value(b)
    return same(left, right) if left is not None and right is not None else a.replace(" ", "") == b.replace(" ", "")


def _members(text: str) -> tuple[str, str, list[str]]:
    """(opening bracket, closing bracket, members), of at most 20 members."""
    text = text.replace("\\{", "{").replace("\\}", "}").replace("\\infty", "infinity")
    whole = len(text) > 1 and text[0] in "([{" and text[-1] in ")]}"
    opens, closes, inner = (text[0], text[-1], text[1:-1]) if whole else ("", "", text)
    depth, found = 0, [""]
    for c in inner:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            found.append("")
        else:
            found[-1] += c
    return opens, closes, [m.strip() for m in found] if len(found) <= 20 else []


def _published(rng: Random, heldout: bool, file: str) -> Item:
    row = rng.choice(side(file, heldout, "problem", "solution"))
    question, solution = str(row["problem"]).strip(), str(row["solution"]).strip()
    boxes = boxed(solution)
    answer = str(row.get("answer") or (boxes[-1][2] if boxes else "")).strip()
    if not answer:
        raise UserError(f"a problem has no answer: {question[:60]!r}", file, "box it in the solution, or give `answer`")
    for start, end, inner in reversed(boxes):  # the form of the answer is written once, behind the steps
        solution = solution[:start] + inner + solution[end:]
    group = str(row.get("type") or row.get("subject") or "")
    messages = conversation(question, f"{solution}\nThe answer is {answer}.")
    return Item("math", question, answer, "math", messages, heldout, group=group)


_Pair = tuple[int, int]


def _numbers(rng: Random, options: MathOptions) -> tuple[str, tuple[str, _Pair, _Pair]]:
    task = rng.choice(options.tasks)

    def pair() -> _Pair:
        return rng.randint(1, options.largest), rng.randint(2, options.largest)

    a, b = pair(), pair()
    if task == "simplify":
        factor = rng.randint(2, options.largest)
        a, b = (a[0] * factor, a[1] * factor), (1, 1)
    return f"{task} {sorted([a, b]) if task in ('add', 'multiply') else [a, b]}", (task, a, b)


def _worked(task: str, a: _Pair, b: _Pair) -> tuple[str, str, Fraction]:
    """(question, steps, value), each step one that a person would write."""
    left, right = f"\\frac{{{a[0]}}}{{{a[1]}}}", f"\\frac{{{b[0]}}}{{{b[1]}}}"
    if task == "simplify":
        return f"Simplify ${left}$.", _reduced(*a), Fraction(*a)
    if task in ("add", "subtract"):
        sign, bottom = "+" if task == "add" else "-", lcm(a[1], b[1])
        tops = a[0] * bottom // a[1], b[0] * bottom // b[1]
        top = tops[0] + tops[1] if task == "add" else tops[0] - tops[1]
        steps = f"lcm({a[1]},{b[1]})={bottom}\n{tops[0]}/{bottom}{sign}{tops[1]}/{bottom}={top}/{bottom}"
    else:
        sign = "\\cdot" if task == "multiply" else "\\div"
        c, d = b if task == "multiply" else (b[1], b[0])
        top, bottom = a[0] * c, a[1] * d
        steps = f"{a[0]}/{a[1]}*{c}/{d}={top}/{bottom}"
    return f"Compute ${left} {sign} {right}$.", f"{steps}\n{_reduced(top, bottom)}", Fraction(top, bottom)


def _reduced(top: int, bottom: int) -> str:
    divisor = gcd(top, bottom)
    return f"gcd({abs(top)},{bottom})={divisor}: {top // divisor}/{bottom // divisor}"
