"""The kinds of problems by name, and many problems of one kind from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from llmctl.errors import UserError, nearest
from llmctl.recipe import Settings
from llmctl.recipe.check import checked
from llmctl.recipe.source import Source
from llmctl.verify import (
    code,
    countdown,
    decimals,
    gsm8k,
    identity,
    letters,
    lookup,
    mathematics,
    names,
    python_tool,
    spelling,
    sums,
)
from llmctl.verify.forms import in_form
from llmctl.verify.item import Item


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its settings, and how one problem is drawn (random numbers, held out?, settings)."""

    options: type[Settings]
    draw: Callable[[Random, bool, Any], Item]


KINDS: dict[str, Kind] = {
    "sums": Kind(sums.SumsOptions, sums.draw),
    "identity": Kind(identity.IdentityOptions, identity.draw),
    "names": Kind(names.NamesOptions, names.draw),
    "lookup": Kind(lookup.LookupOptions, lookup.draw),
    "python": Kind(python_tool.PythonOptions, python_tool.draw),
    "countdown": Kind(countdown.CountdownOptions, countdown.draw),
    "letters": Kind(letters.LettersOptions, letters.draw),
    "spelling": Kind(spelling.SpellingOptions, spelling.draw),
    "decimals": Kind(decimals.DecimalsOptions, decimals.draw),
    "gsm8k": Kind(gsm8k.Gsm8kOptions, gsm8k.draw),
    "math": Kind(mathematics.MathOptions, mathematics.draw),
    "code": Kind(code.CodeOptions, code.draw),
}


def problems(kind: str, n: int, seed: int, heldout: bool, **options: Any) -> list[Item]:
    """`n` problems of a kind, the same ones for the same seed and options (the fields of the kind's `options`).

    No question stands twice while there are others. Where there are too few, training problems are repeated (identity
    has some hundred wordings and is often wanted a thousand times). Held-out ones are not: then there are fewer.
    """
    if kind not in KINDS:
        raise UserError(f"no kind of problems {kind!r}{nearest(kind, KINDS)}", fix="kinds: " + ", ".join(KINDS))
    settings = checked(KINDS[kind].options, options, Source(f"options of {kind}", options))
    form = getattr(settings, "form", "answer")
    rng = Random(f"{kind}/{seed}/{'heldout' if heldout else 'train'}")
    found: list[Item] = []
    seen: set[str] = set()
    stale = 0
    while len(found) < n and not (heldout and stale > 1000):
        item = KINDS[kind].draw(rng, heldout, settings)
        stale = stale + 1 if item.id in seen else 0
        if item.id not in seen or (stale > 1000 and not heldout):
            seen.add(item.id)
            found.append(item if form == "answer" else in_form(item, form))
    return found
