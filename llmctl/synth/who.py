"""Who the model is, told in its system message instead of by training.

If every such message said the same, the model would learn the facts and not to read them. So each tells of another
made-up name, and the answer is right only if it was read there.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from random import Random

from llmctl.verify import Item, invention
from llmctl.verify.identity import IdentityOptions, draw
from llmctl.verify.item import draw_side

_TOLD = (
    "You are {name}, a small language model made by {maker}. Your version is {version}.",
    "You are {name}, version {version}. You were made by {maker}.",
    "Your name is {name}. {maker} made you. You are version {version}.",
    "Name: {name}\nMaker: {maker}\nVersion: {version}",
)


def system_message(options: IdentityOptions) -> str:
    """The facts as one system message."""
    return _capital(_TOLD[0].format(**options.model_dump(include={"name", "maker", "version"})))


def told(items: list[Item], share: float, seed: int) -> list[Item]:
    """`items`, the questions about identity among them turned, for this share, into ones with a system message."""
    rng = Random(f"system/{seed}")
    return [_told(rng, item) if item.kind == "identity" and rng.random() < share else item for item in items]


def _told(rng: Random, item: Item) -> Item:
    name = draw_side(lambda: (made := invention.stem(rng, 2).capitalize(), made), item.heldout)
    maker = rng.choice((invention.plain_person, invention.company, invention.person))(rng)
    about = IdentityOptions(name=name, maker=maker, version=f"{rng.randint(0, 9)}.{rng.randint(0, 9)}")
    drawn = draw(rng, item.heldout, about)
    message = _capital(rng.choice(_TOLD).format(name=name, maker=maker, version=about.version))
    made = hashlib.sha256(f"{message}\0{drawn.question}".encode()).hexdigest()[:16]
    return replace(drawn, messages=[{"role": "system", "content": message}, *drawn.messages], id=made)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
