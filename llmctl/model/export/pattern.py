r"""The pattern that cuts text before BPE, as a small program that a few lines of C can run.

A pattern of this kind is a choice between runs: "a letter, three times" or "white space that no visible character
follows". Groups are multiplied out, so that what is left is a list of alternatives, each a list of runs of one class of
characters; and which character is in which class is a table. The table is made by asking the regex engine that
`tokenizers` uses: no other Unicode version and no other reading of `(?i:s)` can creep in.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cache

import numpy as np
from tokenizers import Regex, pre_tokenizers

from llmctl.errors import UserError

_MANY = 1 << 30
_QUANTIFIERS = {"?": (0, 1), "*": (0, _MANY), "+": (1, _MANY), "": (1, 1)}
_REPEAT = re.compile(r"[?*+]|\{\d+(?:,\d*)?\}|")
_TOKEN = re.compile(
    r"(?P<open>\(\?i:|\(\?:|\(\?!|\(\?=|\()|(?P<close>\))|(?P<bar>\|)"
    r"|(?P<atom>\[(?:\\.|[^\]\\])+\]|\\[pP]\{\^?\w+\}|\\.|[^\\(){}\[\]|?*+$^])",
    re.S,
)


@dataclass(frozen=True)
class Run:
    """From `least` to `most` characters of a class, as many as there are and let the rest match.

    `look` is 1 where the class must come next, -1 where it must not; neither takes anything.
    """

    atom: str
    least: int = 1
    most: int = 1
    look: int = 0


@dataclass(frozen=True)
class Program:
    """`alternatives`, the first that matches wins; the class of a run is the bit `classes[run.atom]` of a character."""

    alternatives: list[list[Run]]
    classes: dict[str, int]
    starts: np.ndarray
    """(R,) int32: where, in code points, each run of characters of equal classes begins."""
    masks: np.ndarray
    """(R,) uint32: the classes of those characters, a bit each."""


def compile_pattern(pattern: str) -> Program:
    """Turn `pattern` into a program. UserError for what cannot be said in runs."""
    alternatives, at = _alternatives(pattern, 0, False)
    if at < len(pattern):
        raise _unknown(pattern, at)
    atoms = sorted({run.atom for a in alternatives for run in a})
    if len(atoms) > 32:
        raise UserError(f"the split pattern has {len(atoms)} classes of characters; 32 can be exported", pattern)
    masks = np.zeros(0x110000, np.uint32)
    for bit, atom in enumerate(atoms):
        masks[_members(atom)] |= np.uint32(1 << bit)
    starts = np.flatnonzero(np.r_[True, masks[1:] != masks[:-1]])
    return Program(alternatives, {a: n for n, a in enumerate(atoms)}, starts.astype(np.int32), masks[starts])


def _alternatives(pattern: str, at: int, any_case: bool) -> tuple[list[list[Run]], int]:
    """The alternatives from `at` up to the end of the group, and where that is."""
    found: list[list[Run]] = []
    parts: list[list[list[Run]]] = []  # what stands one behind the other, each a choice
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise _unknown(pattern, at)
        if token.lastgroup == "close":
            break
        at = token.end()
        if token.lastgroup == "bar":
            found += _multiplied(parts)
            parts = []
        elif token.lastgroup == "atom":
            repeat = _REPEAT.match(pattern, at)
            assert repeat is not None
            at = repeat.end()
            atom = f"(?i:{token[0]})" if any_case else token[0]
            parts.append([[Run(atom, *_times(repeat[0]))]])
        else:
            inner, at = _alternatives(pattern, at, any_case or token[0] == "(?i:")
            choice, at = _group(pattern, token[0], inner, at)
            parts.append(choice)
    return found + _multiplied(parts), at


def _group(pattern: str, kind: str, inner: list[list[Run]], at: int) -> tuple[list[list[Run]], int]:
    """A group as a choice, and where the pattern goes on behind it."""
    if at >= len(pattern):
        raise _unknown(pattern, at)
    at += 1
    if kind in ("(?!", "(?="):
        if len(inner) != 1 or len(inner[0]) != 1 or inner[0][0].least != 1:
            raise _unknown(pattern, at)
        return [[Run(inner[0][0].atom, look=1 if kind == "(?=" else -1)]], at
    if pattern[at : at + 1] == "?":
        return [*inner, []], at + 1
    if pattern[at : at + 1] in ("*", "+", "{"):
        raise _unknown(pattern, at)
    return inner, at


def _multiplied(parts: list[list[list[Run]]]) -> list[list[Run]]:
    return [list(itertools.chain(*choice)) for choice in itertools.product(*parts)]


def _times(quantifier: str) -> tuple[int, int]:
    if quantifier in _QUANTIFIERS:
        return _QUANTIFIERS[quantifier]
    least, comma, most = quantifier.strip("{}").partition(",")
    return int(least), int(most) if most else _MANY if comma else int(least)


@cache
def _members(atom: str) -> np.ndarray:
    """(0x110000,) bool: which characters the class `atom` has, as the regex engine of `tokenizers` sees it."""
    found = np.zeros(0x110000, bool)
    # The planes in use. All of the empty ones are alike, and so are both private ones: one character speaks for each.
    known = np.r_[0:0xD800, 0xE000:0x33500, 0xE0000:0xE0200, 0x50000, 0xF0000]
    text = "".join(map(chr, known))
    rest = pre_tokenizers.Split(Regex(f"(?:{atom})+"), "removed").pre_tokenize_str(text)
    inside = np.ones(len(known), bool)
    for _, (begin, end) in rest:
        inside[begin:end] = False
    found[0x33500:0xE0000], found[0xE0200:0xF0000], found[0xF0000:] = inside[-2], inside[-2], inside[-1]
    found[known] = inside
    return found


def _unknown(pattern: str, at: int) -> UserError:
    return UserError(f"the split pattern cannot be exported from {pattern[at : at + 12]!r} on", pattern)
