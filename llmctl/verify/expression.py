"""The value of an arithmetic expression that a reply wrote, without `eval`.

A parser of one's own, since everything ready-made is open to hostile text: `eval` runs code, and SymPy's parsers call
it too, expand `9**9**9`, and have no bound on time. Here a text has at most 300 characters, brackets nest 20 deep,
and no number ever grows beyond some hundred digits, so that a verdict takes microseconds.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

Value = Fraction | float

_LONGEST = 300
_DEEPEST = 20
_BITS = 400  # of a numerator or denominator
_TOKEN = re.compile(
    r"[ \t]*(?:([0-9]{1,60}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})|(sqrt|frac|pi)|([-+*/^()]))[ \t]*", re.ASCII
)


class _Invalid(Exception):
    """The text is no expression, or one that is too large to be an answer."""


def evaluate(text: str) -> Value | None:
    """The value of numbers, + - * / ^, brackets, `sqrt(a)`, `frac(a)(b)` and `pi`; None for anything else.

    Exact (a Fraction) unless a root or pi makes it a float.
    """
    if len(text) > _LONGEST:
        return None
    try:
        parser = _Parser(_tokens(text))
        value = parser.sum(0)
        return value if parser.at == len(parser.tokens) else None
    except (_Invalid, ArithmeticError, ValueError):
        return None


def same(a: Value, b: Value) -> bool:
    """Equal; floats to nine digits, since a root was rounded."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if not match:
            raise _Invalid
        found.append(match[1] or match[2] or match[3])
        at = match.end()
    return found


class _Parser:
    """Recursive descent, one method a level of precedence."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def _next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self, *wanted: str) -> str:
        token = self._next()
        if token not in wanted:
            return ""
        self.at += 1
        return token

    def sum(self, depth: int) -> Value:
        value = self._product(depth)
        while sign := self._take("+", "-"):
            other = self._product(depth)
            value = _bounded(value + other if sign == "+" else value - other)
        return value

    def _product(self, depth: int) -> Value:
        value = self._signed(depth)
        while True:
            if self._take("*"):
                value = _bounded(value * self._signed(depth))
            elif self._take("/"):
                value = _bounded(value / self._signed(depth))
            elif self._next() in ("(", "sqrt", "frac", "pi"):  # 2 sqrt(3)
                value = _bounded(value * self._power(depth))
            else:
                return value

    def _signed(self, depth: int) -> Value:
        negative = False
        while sign := self._take("+", "-"):
            negative ^= sign == "-"
        value = self._power(depth)
        return -value if negative else value

    def _power(self, depth: int) -> Value:
        base = self._atom(depth)
        if not self._take("^"):
            return base
        negative = bool(self._take("-"))
        exponent = self._atom(depth)  # one level only: towers are no answers
        if isinstance(exponent, Fraction) and exponent.denominator == 1 and exponent <= 64:
            return _bounded(base ** (-int(exponent) if negative else int(exponent)))
        raise _Invalid

    def _atom(self, depth: int) -> Value:
        if depth > _DEEPEST:
            raise _Invalid
        token = self._next()
        self.at += 1
        if token == "pi":
            return math.pi
        if token == "sqrt":
            return _root(self._bracket(depth))
        if token == "frac":
            return _bounded(self._bracket(depth) / self._bracket(depth))
        if token == "(":
            self.at -= 1
            return self._bracket(depth)
        if not token or not (token[0].isdigit() or token[0] == "."):
            raise _Invalid
        return _bounded(Fraction(token))

    def _bracket(self, depth: int) -> Value:
        if not self._take("("):
            raise _Invalid
        value = self.sum(depth + 1)
        if not self._take(")"):
            raise _Invalid
        return value


def _root(value: Value) -> Value:
    """Exact for perfect squares."""
    if value < 0:
        raise _Invalid
    if isinstance(value, Fraction):
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return math.sqrt(value)


def _bounded(value: Value) -> Value:
    if isinstance(value, Fraction):
        small = max(value.numerator.bit_length(), value.denominator.bit_length()) <= _BITS
    else:
        small = math.isfinite(value)
    if not small:
        raise _Invalid
    return value
