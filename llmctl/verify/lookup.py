"""Questions about made-up towns, companies, people and books, which only a search of the library can answer.

Everything about an entity follows from its name, so two makers of problems with different seeds never write two
documents that contradict each other. Held-out entities are never asked about in training, but stand in the library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from llmctl.recipe import Settings
from llmctl.verify import invention
from llmctl.verify.invention import words
from llmctl.verify.item import Item, conversation, draw_side

_GOODS = words("bread cheese honey glass paper boats clocks lamps shoes tea chairs salt silk maps bells")
_JOBS = words("painter baker sailor teacher doctor singer builder farmer writer pilot")
_COUNTRIES = words("France Spain Italy Japan Egypt Brazil China India Greece Russia")
_SUBJECTS = words("birds stars music trains rivers horses numbers gardens storms ships")


class LookupOptions(Settings):
    """Questions that need a search."""

    distractors: int = 100
    """How many documents about entities nobody asks for are added to the library."""


@dataclass(frozen=True)
class _Fact:
    """One fact about a sort of entity: which value, how the document says it, how it is answered, how it is asked."""

    value: str
    page: str
    answer: str
    asks: tuple[str, str]


@dataclass(frozen=True)
class _Sort:
    """A sort of entity: where its names come from, how its document begins, what it tells."""

    invent: Callable[[Random], str]
    opening: str
    facts: tuple[_Fact, ...]


_TOWN = _Sort(
    invention.place,
    "A town in {}.",
    (
        _Fact(
            "year",
            "It was founded in {}.",
            "{n} was founded in {}.",
            ("When was {n} founded?", "In which year was the town {n} founded?"),
        ),
        _Fact(
            "person",
            "The mayor is {}.",
            "The mayor of {n} is {}.",
            ("Who is the mayor of {n}?", "What is the name of the mayor of {n}?"),
        ),
        _Fact(
            "good",
            "It is famous for {}.",
            "{n} is famous for {}.",
            ("What is {n} famous for?", "For what is the town {n} known?"),
        ),
    ),
)
_COMPANY = _Sort(
    invention.company,
    "A company in {}.",
    (
        _Fact(
            "year",
            "It was started in {}.",
            "{n} was started in {}.",
            ("When was {n} started?", "In which year was the company {n} started?"),
        ),
        _Fact(
            "person",
            "The head is {}.",
            "The head of {n} is {}.",
            ("Who is the head of {n}?", "Who runs the company {n}?"),
        ),
        _Fact("good", "It makes {}.", "{n} makes {}.", ("What does {n} make?", "What does the company {n} sell?")),
    ),
)
_PERSON = _Sort(
    invention.person,
    "A person from {}.",
    (
        _Fact(
            "year",
            "The year of birth is {}.",
            "{n} was born in {}.",
            ("When was {n} born?", "What is the birth year of {n}?"),
        ),
        _Fact("job", "The job is {}.", "The job of {n} is {}.", ("What is the job of {n}?", "What work does {n} do?")),
        _Fact(
            "person",
            "The teacher was {}.",
            "The teacher of {n} was {}.",
            ("Who was the teacher of {n}?", "Who taught {n}?"),
        ),
    ),
)
_BOOK = _Sort(
    invention.book,
    "A book from {}.",
    (
        _Fact(
            "year",
            "It was printed in {}.",
            "{n} was printed in {}.",
            ("When was {n} printed?", "In which year was the book {n} printed?"),
        ),
        _Fact(
            "person",
            "The author is {}.",
            "The author of {n} is {}.",
            ("Who is the author of {n}?", "Who wrote the book {n}?"),
        ),
        _Fact(
            "subject",
            "It tells about {}.",
            "{n} tells about {}.",
            ("What does {n} tell about?", "What is the book {n} about?"),
        ),
    ),
)
_SORTS = {"town": _TOWN, "company": _COMPANY, "person": _PERSON, "book": _BOOK}


def draw(rng: Random, heldout: bool, options: LookupOptions) -> Item:
    """A question about an entity from the wanted side of the split, with the document that answers it."""
    sort, name = draw_side(lambda: _entity(rng), heldout)
    values, page = _known_of(sort, name)
    fact = rng.choice(_SORTS[sort].facts)
    question = rng.choice(fact.asks).format(n=name)
    reply = [
        {"type": "search", "text": f"{sort} {name}"},
        {"type": "output", "text": f"{page['title']}: {page['text']}"},
        {"type": "text", "text": fact.answer.format(values[fact.value], n=name)},
    ]
    answer = values[fact.value]
    return Item("lookup", question, answer, "contains", conversation(question, reply), heldout, sort, document=page)


def library(items: list[Item], seed: int = 0, options: LookupOptions | None = None) -> list[dict[str, str]]:
    """The documents that `items` are about, and distractors, by title."""
    rng = Random(f"library/{seed}")
    pages = [item.document for item in items if item.document]
    pages += [_known_of(*_entity(rng)[1])[1] for _ in range((options or LookupOptions()).distractors)]
    return sorted({page["title"]: page for page in pages}.values(), key=lambda page: page["title"])


def _entity(rng: Random) -> tuple[str, tuple[str, str]]:
    sort = rng.choice(tuple(_SORTS))
    name = _SORTS[sort].invent(rng)
    return name, (sort, name)


def _known_of(sort: str, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """(the facts, the document) of an entity; both follow from its name alone."""
    rng = Random(f"{sort}/{name}")
    values = {
        "year": str(rng.randrange(1600, 2000)),
        "person": invention.plain_person(rng),
        "good": rng.choice(_GOODS),
        "job": rng.choice(_JOBS),
        "subject": rng.choice(_SUBJECTS),
    }
    sentences = [_SORTS[sort].opening.format(rng.choice(_COUNTRIES))]
    sentences += [fact.page.format(values[fact.value]) for fact in _SORTS[sort].facts]
    return values, {"title": name, "text": " ".join(sentences)}
