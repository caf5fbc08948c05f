"""Names that nobody has: syllables strung together, from a space far larger than any training set.

A model can only refuse, or look up, what it cannot have learnt by heart, so the held-out names must be new to it.
"""

from __future__ import annotations

from random import Random


def words(*lines: str) -> list[str]:
    """The words of a few lines, as a list."""
    return " ".join(lines).split()


_ONSETS = words("b br c cr d dr f fl g gr h j k kl l m n p pr qu r s sk st t tr v w z")
_VOWELS = words("a e i o u a e o ai ea")
_CODAS = ["", "", "", "l", "n", "r", "s", "m", "nd", "rn", "sk", "lt"]
_FIRST_ENDS = words("an ia on a el is o us in y")
_LAST_ENDS = words("acs er ell ov man ski ard ett in olt")
_PLACE_ENDS = words("ora ville ton mark dale heim stad burg ia port")
_COMPANY_ENDS = words("ex co tec corp soft works")
_BOOK_ENDS = words("iad ium odes ana ics")
_THING_ENDS = words("al ix et oon le ock um ar in ot")

# People who live in made-up documents have plain names: there the model has to copy an answer, not to doubt it.
_PLAIN_FIRST = words(
    "Anna Ben Carla David Emma Frank Grace Henry Ida Jack Karen Leo Mary Nora Oscar Paul Rosa Sam Tom Vera Walter",
    "Alice Peter Laura Max Julia",
)
_PLAIN_LAST = words(
    "Bell Brown Carter Cook Fisher Ford Gray Green Hall Hill King Lake Lane Lee Long Miller Moore North Page Reed",
    "Rose Smith Stone Wood Young White",
)


def stem(rng: Random, syllables: int = 1) -> str:
    """A few syllables in lower case: "brai", "kovtra"."""
    parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables - 1)]
    return "".join(parts) + rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice("lnrstmvd")


def person(rng: Random) -> str:
    """A first and a last name: "Orlan Kovacs"."""
    first = stem(rng) + rng.choice(_FIRST_ENDS)
    last = stem(rng, rng.choice((1, 1, 2))) + rng.choice(_LAST_ENDS)
    return f"{first.capitalize()} {last.capitalize()}"


def place(rng: Random) -> str:
    """A town or a country: "Velmora"."""
    return (stem(rng, rng.choice((1, 2))) + rng.choice(_PLACE_ENDS)).capitalize()


def company(rng: Random) -> str:
    """A company: "Brintec". Its ending tells it from a town."""
    return (stem(rng, rng.choice((1, 2))) + rng.choice(_COMPANY_ENDS)).capitalize()


def book(rng: Random) -> str:
    """The title of a book: "Kovtriad"."""
    return (stem(rng, rng.choice((1, 2))) + rng.choice(_BOOK_ENDS)).capitalize()


def thing(rng: Random) -> str:
    """A thing with its article: "a brintal"."""
    noun = stem(rng, rng.choice((1, 2))) + rng.choice(_THING_ENDS)
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def word(rng: Random) -> str:
    """A word without meaning, in lower case: "stravelin"."""
    return stem(rng, rng.choice((1, 2, 2))) + rng.choice((*_FIRST_ENDS, *_THING_ENDS))


def plain_person(rng: Random) -> str:
    """A common first and last name: "Anna Bell"."""
    return f"{rng.choice(_PLAIN_FIRST)} {rng.choice(_PLAIN_LAST)}"
