"""Ordered replies made from problems with known answers: what a reward model can be taught, and measured on exactly.

Four grades: the taught reply; one that is right but badly given, or honest but unhelpful; one that is wrong; and text
that is no answer, among it the "the the the" into which policies fall that game their reward.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Any

from llmctl.synth.config import SynthConfig
from llmctl.verify import Item, problems
from llmctl.verify.facts import PEOPLE, PLACES, THINGS
from llmctl.verify.sums import carries, worked

_FACTS = {name: sentence for table in (PEOPLE, PLACES, THINGS) for name, sentence, _ in table}
_INVENTIONS = (
    "{} is a painter from Italy.",
    "{} was a king of Spain.",
    "{} is a city in Japan.",
    "{} is a machine that makes bread.",
    "{} is a bird of the sea.",
    "{} wrote many books about trains.",
)
_STRANGERS = ("I am ChatGPT, made by OpenAI.", "I am Gemini, made by Google.", "I am a person. My name is Tom.")
_FILLERS = ("the", "and", "answer", "is", "so", "ok", "very")


def comparisons(config: SynthConfig, n: int, heldout: bool) -> list[dict[str, Any]]:
    """`n` rows of a comparisons artifact, from training or from held-out problems."""
    kinds = config.preferences.kinds
    items: list[Item] = []
    for i, kind in enumerate(kinds):
        share = n // len(kinds) + (i < n % len(kinds))
        items += problems(kind, share, config.seed, heldout, **getattr(config, kind).model_dump())
    rng = Random(f"preferences/{config.seed}/{heldout}")
    rng.shuffle(items)
    return [_row(item, rng, config) for item in items]


def grades(item: Item, rng: Random) -> list[str]:
    """Four replies to the item's question, the best first."""
    taught = item.messages[-1]["content"]
    weak, wrong = _WEAK_AND_WRONG[item.kind](item, rng)
    return [taught, weak, wrong, _nonsense(taught, rng)]


def _row(item: Item, rng: Random, config: SynthConfig) -> dict[str, Any]:
    wanted = rng.randint(*config.preferences.responses)
    chosen = sorted(rng.sample(range(4), wanted))
    replies = grades(item, rng)
    ranked = list(enumerate(replies[grade] for grade in chosen))
    rng.shuffle(ranked)
    return {
        "prompt": item.messages[:-1],
        "responses": [reply for _, reply in ranked],
        "ranking": [rank for rank, _ in ranked],
        "kind": item.kind,
        "id": item.id,
    }


def _sums(item: Item, rng: Random) -> tuple[str, str]:
    """Weak: right, without the steps or without the closing sentence. Wrong: a forgotten carry, a slip at the end."""
    numbers, sign = [int(n) for n in re.findall(r"[0-9]+", item.question)], item.group
    steps = item.messages[-1]["content"].rpartition("\n")[0]
    weak = rng.choice((f"The answer is {item.answer}.", item.answer, f"{steps}\n{item.answer}", steps))
    forgotten = carries(numbers, sign)
    if forgotten and rng.random() < 0.7:
        answer, steps = worked(numbers, sign, slip=rng.choice(forgotten))
    else:
        answer = abs(int(item.answer) + rng.choice((-100, -10, -2, -1, 1, 2, 10, 100)))
        answer = answer + 1 if str(answer) == item.answer else answer
    return weak, rng.choice((f"{steps}\nThe answer is {answer}.", f"The answer is {answer}."))


def _names(item: Item, rng: Random) -> tuple[str, str]:
    """Weak: a guess that says it is one, or a refusal of a known name. Wrong: an invention, or another's fact."""
    if item.check == "refusal":
        name = _capital(item.answer)
        return f"I am not sure. {rng.choice(_INVENTIONS).format(name)}", rng.choice(_INVENTIONS).format(name)
    taught = item.messages[-1]["content"]
    name = next(n for n, sentence in _FACTS.items() if sentence == taught)
    other, sentence = rng.choice([(n, s) for n, s in _FACTS.items() if n != name])
    return f"I have never heard of {name}.", sentence.replace(_capital(other), _capital(name), 1)


def _identity(item: Item, rng: Random) -> tuple[str, str]:
    return rng.choice(("I am an assistant.", "I would rather not say.")), rng.choice(_STRANGERS)


def _nonsense(taught: str, rng: Random) -> str:
    """One word over and over, the taught reply over and over, or its words in disorder."""
    words = taught.split()
    disorder = rng.sample(words, len(words)) * 2
    return rng.choice(
        (
            " ".join([rng.choice(_FILLERS)] * rng.randint(8, 40)),
            " ".join([taught] * rng.randint(4, 8)),
            " ".join(disorder),
        )
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_WEAK_AND_WRONG: dict[str, Callable[[Item, Random], tuple[str, str]]] = {
    "sums": _sums,
    "names": _names,
    "identity": _identity,
}
