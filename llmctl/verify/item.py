"""A problem with a known answer, the verdict on a reply, and which problems are held out.

A problem is held out by a hash of what makes it this problem and no other (the operands of a sum, the name that is
asked about, the wording of a question), never by a seed. So whoever asks for problems, with whatever seed, to train or
to measure, gets parts that cannot overlap, and a held-out sum is not in the training part in other words either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from llmctl.errors import UserError

T = TypeVar("T")

_HELD_OUT_OF_TEN = 1
_TRIES = 5000  # a side of the split that this many draws do not hit is empty for all that matters


@dataclass
class Item:
    """One problem. `messages` is the whole worked conversation, as it would be trained on.

    `check` names how a reply is judged against `answer`: one of `checks.CHECKS`.
    `form` is the form that the reply is to have (`forms.Form`) where it is another than the kind's own.
    `document` is what a search for the answer should find ({"title", "text"}), where the problem needs a search.
    `group` tells the parts of a kind apart in a report ("made-up" and "known" names, ...).
    """

    kind: str
    question: str
    answer: str
    check: str
    messages: list[dict[str, Any]]
    heldout: bool
    group: str = ""
    document: dict[str, str] | None = None
    id: str = field(default="")
    form: str = ""

    def __post_init__(self) -> None:
        self.id = self.id or hashlib.sha256(f"{self.kind}\0{self.question}".encode()).hexdigest()[:16]

    def row(self) -> dict[str, Any]:
        """The row of a conversations artifact."""
        row = {"messages": self.messages, "kind": self.kind, "answer": self.answer, "check": self.check, "id": self.id}
        more = {"group": self.group, "form": self.form}
        return {**row, **{name: value for name, value in more.items() if value}}


@dataclass(frozen=True)
class Verdict:
    """`correct`: the answer is right. `formatted`: it is given in the form that was taught. `answer`: what was read."""

    correct: bool
    formatted: bool
    answer: str | None


def conversation(question: str, reply: str | list[dict[str, str]]) -> list[dict[str, Any]]:
    """The two messages of a question and its answer. `reply` is text, or the parts of a turn that uses a tool."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]


def held_out(key: str) -> bool:
    """True for about a tenth of all keys, the same ones everywhere and for ever. Case and spacing do not count."""
    digest = hashlib.sha256(" ".join(key.lower().split()).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10 < _HELD_OUT_OF_TEN


def draw_side(draw: Callable[[], tuple[str, T]], heldout: bool) -> T:
    """Draw (key, value) until the key is on the wanted side of the split. UserError where that side is empty."""
    for _ in range(_TRIES):
        key, value = draw()
        if held_out(key) == heldout:
            return value
    side = "held-out" if heldout else "training"
    raise UserError(f"the settings of this kind of problem leave no {side} problems", fix="widen them (more digits)")
