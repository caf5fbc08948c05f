"""Judging a reply against a known answer.

A reply is untrusted text: under reinforcement learning it is written by something that is paid for fooling this file.
So nothing is evaluated (programs run in the sandbox that the caller passes), every pattern is linear in the length of
the text, only the end of a long reply is read, and a reply that says several things is judged by the last one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from llmctl.errors import UserError
from llmctl.verify import code, countdown, mathematics, spelling
from llmctl.verify.forms import has_think_form, stated
from llmctl.verify.item import Item, Verdict

# Taught answers have fewer than 300 characters; verl reads 300 from the end for the same reason.
_READ = 2000
_SHORT = 400
_DIGITS = 60

_NUMBER = r"[-+]?\$?[0-9][0-9,]{0,80}(?:\.[0-9]{1,60})?"
_NUMBERS = re.compile(rf"(?<![\w.]){_NUMBER}(?![\w])")
_WORD = re.compile(r"\w+")
_TOOL_RESULT = "<|output_end|>"
_TOOL_CALL = re.compile(r"<\|(?:search|python|output)_(?:start|end)\|>")
_REFUSAL = re.compile(
    r"\b(?:(?:do not|don'?t|cannot|can'?t) (?:know|say|tell)|never heard|no (?:knowledge|information|idea)|"
    r"not (?:know|sure|aware|familiar)|unknown to me)\b",
    re.IGNORECASE,
)
_CLAIM = re.compile(r"\b(?:is|was|are|were) (?:an?|the|one of)\b", re.IGNORECASE)


def check(problem: Item | Mapping[str, Any], reply: str, run: code.Run | None = None) -> Verdict:
    """Judge `reply` against a problem, or against a row of a conversations artifact that has "answer" and "check".

    What was written inside tool calls, and what the tools gave back, does not count: the words after them do. Where the
    problem's form is "think", `formatted` is the rule of DeepSeek-R1: all of the reply in <think> and <answer> tags.
    `run` is the sandbox (`tools.python.run_python`), which the check "code" needs.
    UserError where the row names no known check, or programs are to be judged without a sandbox.
    """
    row = vars(problem) if isinstance(problem, Item) else problem
    name, answer, form = row.get("check"), row.get("answer"), row.get("form")
    if name not in CHECKS or answer is None:
        raise UserError(f"a problem needs an 'answer' and a 'check' among {', '.join(CHECKS)}; check is {name!r}")
    reply = str(reply)
    if name == "code":
        found = _code(str(answer), reply, run)
    else:
        found = _JUDGES[str(name)](str(answer), last_words(reply))
    return replace(found, formatted=has_think_form(reply)) if form == "think" else found


def last_words(reply: str) -> str:
    """What the reply says after its last tool result, without an unfinished call; of a long one, the end."""
    said = reply[-_READ:].rpartition(_TOOL_RESULT)[2]
    call = _TOOL_CALL.search(said)
    return (said[: call.start()] if call else said).strip()


def number_in(text: str) -> str | None:
    """The last number in `text`, normalised as by `normal_number`, or None."""
    found = _NUMBERS.findall(text)
    return normal_number(found[-1]) if found else None


def normal_number(text: str) -> str | None:
    """'+1,050.50' as '1050.5'. None for what is no number, or has over 60 digits."""
    text = text.strip().replace(",", "").replace("$", "").rstrip(".")
    match = re.fullmatch(r"([-+]?)([0-9]{1,60})(?:\.([0-9]{1,60}))?", text)
    if not match or len(text) > 2 * _DIGITS:
        return None
    whole, part = match[2].lstrip("0") or "0", (match[3] or "").rstrip("0")
    value = f"{whole}.{part}" if part else whole
    return f"-{value}" if match[1] == "-" and value != "0" else value


def _number(answer: str, text: str) -> Verdict:
    """Without a stated answer the last number counts as the answer, but not as the form."""
    said, once = stated(text)
    found = number_in(said if said is not None else text)
    clean = said is not None and normal_number(said) is not None
    return Verdict(found is not None and found == normal_number(answer), once and clean, found)


def _exact(answer: str, text: str) -> Verdict:
    said, once = stated(text)
    found = _bare(said if said is not None else text[:200])
    return Verdict(bool(found) and found == _bare(answer), once, found or None)


def _contains(answer: str, text: str) -> Verdict:
    """The phrase stands in a short reply that does not refuse. Long replies could contain every phrase there is."""
    there = bool(_WORD.search(answer)) and _phrase(answer) in _phrase(text[: _SHORT + 1])
    sentence = _is_sentence(text)
    return Verdict(there and len(text) <= _SHORT and not _REFUSAL.search(text), sentence, answer if there else None)


def _refusal(answer: str, text: str) -> Verdict:
    """One or two short sentences, the first says that it does not know, and none goes on to make something up."""
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text[: _SHORT + 1]) if s.strip()]
    refuses = bool(sentences) and bool(_REFUSAL.search(sentences[0])) and len(text) <= _SHORT
    invents = any(_CLAIM.search(s) and not _REFUSAL.search(s) for s in sentences)
    return Verdict(refuses and len(sentences) <= 2 and not invents, _is_sentence(text), "refusal" if refuses else None)


def _spelled(answer: str, text: str) -> Verdict:
    """The letters of the answer, one by one, with whatever between them."""
    said, once = stated(text)
    found = spelling.letters_of(said if said is not None else text)
    return Verdict(found is not None and found == spelling.letters_of(answer), once and found is not None, found)


def _countdown(answer: str, text: str) -> Verdict:
    """Without a stated expression there is none: a search is full of them."""
    said, once = stated(text)
    found = countdown.normal_expression(said or "")
    return Verdict(countdown.solves(answer, found), once and bool(found), found or None)


def _math(answer: str, text: str) -> Verdict:
    """Without a stated answer the last number counts as the answer, but not as the form."""
    said, once = stated(text)
    found = said if said is not None else number_in(text)
    return Verdict(found is not None and mathematics.equivalent(found, answer), once, found)


def _code(answer: str, reply: str, run: code.Run | None) -> Verdict:
    """The last fenced block passes the tests. The form is one fenced block, at the end."""
    if run is None:
        raise UserError("programs are judged by running them", fix="turn the python tool on")
    said = reply.rpartition(_TOOL_RESULT)[2]
    block = said.count("```") == 2 and said.rstrip().endswith("```")
    return Verdict(code.passes(answer, said, run), block, code.program_in(said)[:_READ] or None)


def _bare(text: str) -> str:
    """Without quotes, spacing and a final stop: what was meant."""
    return " ".join(text.split()).rstrip(".").strip("\"'` ").casefold()


def _phrase(text: str) -> str:
    """Lower-case words between single spaces, with a space at both ends, so that words match whole."""
    return " ".join(["", *_WORD.findall(text.lower()), ""])


def _is_sentence(text: str) -> bool:
    return 0 < len(text) <= _SHORT and text[0].isupper() and text[-1] in ".!?"


_JUDGES: dict[str, Callable[[str, str], Verdict]] = {
    "number": _number,
    "exact": _exact,
    "contains": _contains,
    "refusal": _refusal,
    "spelled": _spelled,
    "countdown": _countdown,
    "math": _math,
}
CHECKS = (*_JUDGES, "code")
