"""Answers that state the result before the reasoning that leads to it.

A model computes one token at a time, with the same little work for each. An example that begins with the result asks
for all of the work in one token, and teaches to guess; the reasoning behind it only excuses the guess ("models need
tokens to think"). Such examples are found here, to be dropped or rewritten.

This is a rule of thumb, made to be right where it speaks: it knows numbers and options (A to E), and says nothing of a
plain "yes" or of answers without any working. Measured in tests/formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NUMBER = r"-?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?"
_VALUE = re.compile(_NUMBER + r"|\(?\b[A-E]\b\)?")
_MEANT = re.compile(  # how a first sentence says that it is the answer
    r"(?:the |my |final |correct |right )*(?:answer|result|solution|option|choice)\b"
    r"|(?:so |it |that |this |there |he |she |they |we |you |i )?(?:is|are|it's|that's|equals)\b"
    r"|[-$€£(]?\d|\(?[A-E]\)?(?:[.:]|$)",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?:])\s+(?=[A-Z\d(*$\\-])|\n+")
_OPERATION = re.compile(r"\d\s*(?:[-+*/×·÷^]|times|plus|minus|divided by)\s*[$€£]?\d")
_EQUATION = re.compile(r"[\d)]\s*=\s*[-$€£]?\d")
_RIGHT = re.compile(rf"=\s*({_NUMBER})")
_WORKING = re.compile(
    r"\b(?:because|since|first|then|next|therefore|so|thus|hence|step|let'?s|we (?:have|get|need|know)|means that)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[*_`$\\]+|\\boxed\{|\}|#+")
_LEAST = 6  # words of reasoning; fewer are a remark


@dataclass(frozen=True)
class AnswerFirst:
    """Where a reply states its result too early."""

    stated: str
    """The sentence that states it."""
    value: str
    """The result."""


def answer_first(reply: str, answer: str | None = None) -> AnswerFirst | None:
    """What the reply states before it reasons; None where it reasons first, or not at all.

    `answer` is the known result, where there is one; otherwise the result is what the reply arrives at last.
    """
    first, rest = _parted(reply)
    if not rest or len(rest.split()) < _LEAST or not _MEANT.match(_plain(first)):
        return None
    if _OPERATION.search(first) or _EQUATION.search(first):
        return None  # the first sentence does the work itself
    reckons = bool(_OPERATION.search(rest) or _EQUATION.search(rest))
    if not reckons and not _WORKING.search(rest):
        return None
    results = {_bare(answer)} if answer is not None else _arrived(rest, reckons)
    value = next((v for v in map(_bare, _VALUE.findall(_plain(first))) if v in results), None)
    return AnswerFirst(first.strip(), value) if value else None


def answers_first(rows: Iterable[Mapping[str, Any]]) -> list[tuple[int, AnswerFirst]]:
    """(index, finding) of every conversation that has such a reply, its first one."""
    return [(i, found) for i, row in enumerate(rows) if (found := _in_conversation(row))]


def _in_conversation(row: Mapping[str, Any]) -> AnswerFirst | None:
    messages: Sequence[Mapping[str, Any]] = row["messages"]
    known = row.get("answer") if isinstance(row.get("answer"), str) else None
    for i, message in enumerate(messages):
        # A reply that calls a tool has its result from there.
        if message["role"] == "assistant" and isinstance(message["content"], str):
            last = i == len(messages) - 1
            if found := answer_first(message["content"], known if last else None):
                return found
    return None


def _parted(reply: str) -> tuple[str, str]:
    """The first sentence and what follows it."""
    text = reply.strip()
    end = _SENTENCE.search(text)
    if end and text[: end.start()].endswith(":") and not _VALUE.search(text[: end.start()]):
        end = _SENTENCE.search(text, end.end())  # "Answer:" and the answer on the next line
    return (text[: end.start()], text[end.end() :]) if end else (text, "")


def _arrived(text: str, reckons: bool) -> set[str]:
    """What a reasoning arrives at: its last value, and that of its last equation. Numbers only where it reckons."""
    plain = _plain(text)
    ends = [found[-1:] for found in (_VALUE.findall(plain), _RIGHT.findall(plain))]
    return {v for v in (_bare(v) for end in ends for v in end) if reckons or not v[-1:].isdigit()}


def _plain(text: str) -> str:
    return _MARKUP.sub("", text.replace("$", "")).strip()


def _bare(value: str) -> str:
    bare = value.strip().strip("()$€£ ").replace(",", "").replace("$", "")
    return bare[:-2] if bare.endswith(".0") else bare
