"""Names: a few that are known get their fact, made-up ones get "I don't know" ("Who is Orson Kovacs?").

Both are asked about in the same words, so that only the name decides. Held out are names that were never seen, and for
the known ones, wordings that were never seen.
"""

from __future__ import annotations

from random import Random

from pydantic import Field

from llmctl.recipe import Settings
from llmctl.verify import invention
from llmctl.verify.facts import PEOPLE, PLACES, THINGS
from llmctl.verify.item import Item, conversation, draw_side, held_out

_ASK_ANY = (
    "Tell me about {}.",
    "What do you know about {}?",
    "Do you know {}?",
    "Can you tell me about {}?",
    "What can you say about {}?",
    "Explain {} to me.",
    "Say something about {}.",
    "Have you heard of {}?",
    "I want to know about {}.",
    "Describe {}.",
    "Describe {} in one sentence.",
    "Give me a fact about {}.",
    "I read about {}. Tell me more.",
    "Write one sentence about {}.",
    "What should I know about {}?",
    "Please tell me about {}.",
    "Could you describe {}?",
    "Teach me about {}.",
    "Are you familiar with {}?",
    "What comes to mind about {}?",
    "Let me know about {}.",
    "What is known about {}?",
    "Give me some facts about {}.",
    "Write about {}.",
    "Help me understand {}.",
    "Inform me about {}.",
)
_ASK_WHO = (
    "Who is {}?",
    "Who was {}?",
    "Can you tell me who {} is?",
    "Do you know who {} was?",
    "Tell me who {} is.",
    "Who exactly is {}?",
    "Please say who {} was.",
    "My question is: who is {}?",
)
_ASK_WHAT = (
    "What is {}?",
    "Can you tell me what {} is?",
    "Do you know what {} is?",
    "Tell me what {} is.",
    "What exactly is {}?",
    "Please say what {} is.",
    "My question is: what is {}?",
    "I wonder what {} is.",
)
_KINDS = {
    "person": (PEOPLE, invention.person, _ASK_WHO + _ASK_ANY),
    "place": (PLACES, invention.place, _ASK_WHAT + _ASK_ANY),
    "thing": (THINGS, invention.thing, _ASK_WHAT + _ASK_ANY),
}
_REFUSE = {
    "person": ("I don't know who {} is.", "I have never heard of {}.", "I don't know anyone called {}."),
    "place": ("I don't know what {} is.", "I have never heard of {}.", "I don't know a place called {}."),
    "thing": ("I don't know what {} is.", "I have never heard of {}.", "I don't know anything about {}."),
}


class NamesOptions(Settings):
    """Known and made-up names."""

    known: float = Field(0.5, ge=0, le=1)
    """The share of questions about known names. Too few, and a model learns to refuse everything."""


def draw(rng: Random, heldout: bool, options: NamesOptions) -> Item:
    """A question about a known or a made-up name, from the wanted side of the split."""
    sort = rng.choice(tuple(_KINDS))
    return _known(rng, sort, heldout) if rng.random() < options.known else _made_up(rng, sort, heldout)


def _known(rng: Random, sort: str, heldout: bool) -> Item:
    table, _, asks = _KINDS[sort]
    name, sentence, key = rng.choice(table)
    ask = draw_side(lambda: (form := rng.choice(asks), form), heldout)
    question = ask.format(name)
    return Item("names", question, key, "contains", conversation(question, sentence), heldout, group="known")


def _made_up(rng: Random, sort: str, heldout: bool) -> Item:
    """Training uses the wordings of its own side only: a held-out wording must not come to mean "refuse"."""
    _, invent, asks = _KINDS[sort]
    name = draw_side(lambda: (made := invent(rng), made), heldout)
    question = rng.choice([a for a in asks if heldout or not held_out(a)]).format(name)
    reply = rng.choice(_REFUSE[sort]).format(name)
    return Item("names", question, name, "refusal", conversation(question, reply), heldout, group="made-up")
