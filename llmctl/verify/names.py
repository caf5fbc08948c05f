"""Names: a few that are known get their fact, made-up ones get "I don't know" ("Who is Orson Kovacs?").

Both are asked about in the same words, so that only the name decides. Held out are names that were never seen, and for
the known ones, wordings that were never seen.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal

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
# In so many words that an unfamiliar wording no longer means an unfamiliar name.
_MORE_ANY = (
    "What can you tell me about {}?",
    "Do you know anything about {}?",
    "Do you know something about {}?",
    "Could you tell me about {}?",
    "Would you tell me about {}?",
    "Can you describe {}?",
    "Can you explain {}?",
    "Could you explain {} to me?",
    "What do people know about {}?",
    "What do people say about {}?",
    "What have you heard about {}?",
    "What have you learned about {}?",
    "What did you learn about {}?",
    "Tell me something about {}.",
    "Tell me a fact about {}.",
    "Tell me one thing about {}.",
    "Tell me more about {}.",
    "Please describe {}.",
    "Please explain {}.",
    "Say a word about {}.",
    "Say what you know about {}.",
    "I would like to know about {}.",
    "I want to hear about {}.",
    "I want to learn about {}.",
    "I need to know about {}.",
    "I heard about {}. What do you know?",
    "Someone asked me about {}.",
    "My friend told me about {}.",
    "Name a fact about {}.",
    "Share a fact about {}.",
    "Give me a sentence about {}.",
    "Give me an idea of {}.",
    "What is there to know about {}?",
    "What is important about {}?",
    "What is there to say about {}?",
    "What must I know about {}?",
    "What may I know about {}?",
    "Show me what you know about {}.",
    "Is there anything to know about {}?",
    "Have you ever heard of {}?",
    "Did you hear of {}?",
    "Did you ever read about {}?",
    "I am curious about {}.",
    "I am interested in {}.",
    "Let us talk about {}.",
    "A question about {}: what do you know?",
    "Now tell me about {}.",
    "First tell me about {}.",
    "Write a line about {}.",
    "Write something about {}.",
    "Speak about {}.",
    "Talk about {}.",
    "Educate me about {}.",
    "Introduce {} to me.",
    "Remind me of {}.",
    "Define {}.",
    "Sum up {}.",
)
_MORE_WHO = (
    "Who might {} be?",
    "Could you tell me who {} is?",
    "Could you tell me who {} was?",
    "I wonder who {} is.",
    "I want to know who {} was.",
    "I would like to know who {} is.",
    "Say who {} is.",
    "Tell me who {} was.",
    "Please tell me who {} was.",
    "Explain who {} is.",
    "Remind me who {} was.",
    "Who do people mean by {}?",
)
_MORE_WHAT = (
    "What might {} be?",
    "Could you tell me what {} is?",
    "I want to know what {} is.",
    "I would like to know what {} is.",
    "Say what {} is.",
    "Please tell me what {} is.",
    "Explain what {} is.",
    "Remind me what {} is.",
    "Do you happen to know what {} is?",
    "What is meant by {}?",
    "What do people mean by {}?",
    "What kind of thing is {}?",
)
_Asks = tuple[str, ...]
# The table of the known ones, how others are made up, and how both are asked about: in few wordings, and in more.
_KINDS: dict[str, tuple[list[tuple[str, str, str]], Callable[[Random], str], _Asks, _Asks]] = {
    "person": (PEOPLE, invention.person, _ASK_WHO + _ASK_ANY, _MORE_WHO + _MORE_ANY),
    "place": (PLACES, invention.place, _ASK_WHAT + _ASK_ANY, _MORE_WHAT + _MORE_ANY),
    "thing": (THINGS, invention.thing, _ASK_WHAT + _ASK_ANY, _MORE_WHAT + _MORE_ANY),
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
    wordings: Literal["few", "many"] = "few"
    """In how many wordings it is asked: 34 for each sort of name, or some hundred. With few, a small model also refuses
    known names where it does not know the wording."""


def draw(rng: Random, heldout: bool, options: NamesOptions) -> Item:
    """A question about a known or a made-up name, from the wanted side of the split."""
    sort = rng.choice(tuple(_KINDS))
    *_, few, more = _KINDS[sort]
    asks = few if options.wordings == "few" else few + more
    return (_known if rng.random() < options.known else _made_up)(rng, sort, heldout, asks)


def _known(rng: Random, sort: str, heldout: bool, asks: _Asks) -> Item:
    table, *_ = _KINDS[sort]
    name, sentence, key = rng.choice(table)
    ask = draw_side(lambda: (form := rng.choice(asks), form), heldout)
    question = ask.format(name)
    return Item("names", question, key, "contains", conversation(question, sentence), heldout, group="known")


def _made_up(rng: Random, sort: str, heldout: bool, asks: _Asks) -> Item:
    """Training uses the wordings of its own side only: a held-out wording must not come to mean "refuse"."""
    _, invent, *_ = _KINDS[sort]
    name = draw_side(lambda: (made := invent(rng), made), heldout)
    question = rng.choice([a for a in asks if heldout or not held_out(a)]).format(name)
    reply = rng.choice(_REFUSE[sort]).format(name)
    return Item("names", question, name, "refusal", conversation(question, reply), heldout, group="made-up")
