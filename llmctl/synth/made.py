"""What a maker hands back: rows for both sides, and what became of everything that is not among them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from llmctl.endpoint.config import EndpointSettings

_SHOWN = 2000  # characters of a rejected text that are kept for a person to look at
# What stands for structure in some chat format. As text it would teach the model to write such signs.
_SPECIAL = re.compile(r"<\|[\w-]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|[\x00-\x08\x0b-\x1f\x7f]")

THOUGHT = re.compile(r"^\s*<think>(.*?)</think>\s*", re.S)
"""What a reasoning model thinks before it speaks, where its server leaves that in the text."""


@dataclass
class Made:
    """`train` and `heldout` rows; `rejected` what was left out, each with `why`; `figures` for the manifest."""

    train: list[dict[str, Any]] = field(default_factory=list)
    heldout: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def reject(self, why: str, about: str, text: str = "") -> None:
        """Leave one out. `about` is the question, or what else tells where it belongs."""
        self.rejected.append({"why": why, "about": about[:_SHOWN], "text": text[:_SHOWN]})

    def reasons(self) -> dict[str, int]:
        """How many were left out, by reason, the most frequent first. What stands behind a colon is not the reason."""
        return dict(Counter(row["why"].partition(":")[0] for row in self.rejected).most_common())

    def summary(self) -> str:
        """The reasons on one line."""
        return ", ".join(f"{why}: {n:,}" for why, n in self.reasons().items())


@dataclass(frozen=True)
class Call:
    """Requests of one sort, for the estimate: how many, characters sent with each, most tokens that come back."""

    what: str
    count: int
    chars: float
    most_tokens: int
    charged: bool = True


def estimate(calls: Iterable[Call], endpoint: EndpointSettings) -> list[tuple[str, str]]:
    """Rows for --dry-run: requests, tokens in (a token is about four characters) and at most out, and their price."""
    rows, total_in, total_out = [], 0, 0
    for call in calls:
        tokens_in, tokens_out = round(call.count * call.chars / 4), call.count * call.most_tokens
        rows.append((call.what, f"{call.count:,} requests, about {tokens_in:,} tokens in, at most {tokens_out:,} out"))
        if call.charged:
            total_in, total_out = total_in + tokens_in, total_out + tokens_out
    if endpoint.url:
        price = endpoint.cost(total_in, total_out)
        at_most = f"at most {price:,.2f}" if price else "unknown: set endpoint.price_in and endpoint.price_out"
        rows.append(("cost", f"{at_most} ({endpoint.model} at {endpoint.url})"))
    return rows


def aloud(text: str) -> str:
    """What a model says, without what it thought before."""
    return THOUGHT.sub("", text).strip()


def unusable(text: str, most_chars: int = 20_000) -> str:
    """Why a text that a model wrote cannot be taught, or an empty string."""
    if not text.strip():
        return "empty"
    if len(text) > most_chars:
        return "too long"
    return "special tokens" if _SPECIAL.search(text) else ""
