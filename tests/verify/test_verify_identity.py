"""The questions about the model itself in many wordings, and problems that stay what they were."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter

from llmctl.verify import identity, problems


def bare(question: str) -> str:
    return question.removeprefix(max((g for g in identity._GREETINGS if question.startswith(g)), key=len))


def test_many_wordings_ask_the_same_in_more_words_and_are_held_out_too() -> None:
    """No question on both sides, whatever stands in front of it, and none under two topics."""
    sides = [problems("identity", 3000, 0, side, wordings="many") for side in (False, True)]
    train, heldout = ({bare(i.question): i.group for i in side} for side in sides)
    assert len(train) > 1000 and len(heldout) > 150 and not set(train) & set(heldout)
    assert set(Counter(heldout.values())) == {"name", "self", "maker", "version", "kind", "skills"}
    few = {i.question for i in problems("identity", 2000, 0, False)}
    assert not few & {i.question for i in sides[1]}
    for topic in identity._TOPICS:
        asks = {ask for group in identity._many(topic) for ask in group}
        assert all(re.fullmatch(r"[A-Z][\w' ,.-]*[.?]", ask) for ask in asks)
        others = {ask for t in identity._TOPICS if t != topic for group in identity._many(t) for ask in group}
        assert not asks & others


def test_the_quickstarts_problems_are_the_ones_it_was_measured_with() -> None:
    """Whoever changes how problems are drawn has to measure again what README and the lab notebook say."""
    found = {}
    for kind in ("sums", "identity", "names", "lookup", "python"):
        items = [item.row() for side in (False, True) for item in problems(kind, 200, 0, side)]
        found[kind] = hashlib.sha256(json.dumps(items).encode()).hexdigest()[:8]
    assert found == {
        "sums": "fbfbe55d",
        "identity": "4613196d",
        "names": "b6de1c8c",
        "lookup": "8eb7d93f",
        "python": "bffb320e",
    }
