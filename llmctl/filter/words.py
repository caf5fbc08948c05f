r"""Words and sentences, as every rule of the recipe counts them, and as numbers that NumPy can count.

FineWeb counts the tokens of spaCy's blank English tokenizer (`llmctl.filter.word_split` has its rules): punctuation
marks are words of their own, contractions are split ("do" "n't"), numbers, addresses and abbreviations are not.

A text is cut at white space and each chunk is looked up before it is split: texts repeat their chunks, so that nearly
all the work is a look-up in a dictionary. A chunk's words are numbers there, and what a rule asks of a word (its length,
whether it has a letter) is asked once and lies in a table by that number.

The dictionary lives as long as the process and is bounded: full, it becomes the one before, which is still looked into
for the chunks that come again, and the one before that is dropped.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain

import numpy as np

from llmctl.filter.characters import PUNCTUATION_SET, SENTENCE_ENDS
from llmctl.filter.word_split import chunk_words, text_words

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""MassiveText's, in lower case."""

# What a word is, as bits of its kind: not only punctuation; with a letter; a stop word, by its place in STOP_WORDS.
WORDY, LETTER, FIRST_STOP_WORD = 1, 2, 2
_STOP_WORDS = {word: 1 << FIRST_STOP_WORD + place for place, word in enumerate(STOP_WORDS)}

# Longer chunks hardly repeat, and there are too many to keep.
_CACHED_LENGTH = 64
# Two dictionaries of this many chunks (and the characters of the longer ones) take up to about 200 MB.
_MOST_CHUNKS = 1 << 18
_MOST_CHARACTERS = 1 << 24

# The number of no word. It begins the words of a chunk whose neighbours could change them (see word_split).
_MARK = 0
# What a word is to the sentencizer; white space is `s`.
_END, _PUNCTUATION, _OTHER, _MARKED = b"epw!"
_NEXT_SENTENCE = re.compile(rb"e[ep]*[ws]")
_WHITE_SPACE = re.compile(r"(\s+)")


class _Chunks(dict[str, tuple[int, ...]]):
    """Chunk to the numbers of its words, found where it is missing."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        numbers = self.vocabulary.split(chunk)
        if len(chunk) <= _CACHED_LENGTH:
            self[chunk] = numbers
        return numbers


class _Classes(dict[str, bytes]):
    """Chunk to what its words are to the sentencizer, a byte each."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def __missing__(self, chunk: str) -> bytes:
        classes = bytes(map(self.vocabulary.classes.__getitem__, self.vocabulary.chunks[chunk]))
        if len(chunk) <= _CACHED_LENGTH:
            self[chunk] = classes
        return classes


class Vocabulary:
    """The words met so far, by number."""

    def __init__(self, before: Vocabulary | None = None) -> None:
        self.words = [""]
        self.chunks = _Chunks(self)
        self.chunk_classes = _Classes(self)
        self.classes = bytearray([_MARKED])
        self.characters = 0
        self._numbers = {"": _MARK}
        self._before = before
        self._kinds: list[int] = [0]
        self._tables = np.zeros((2, 1), dtype=np.int64)
        self._filled = 1

    def full(self) -> bool:
        """Whether it is time for another one."""
        return len(self.chunks) > _MOST_CHUNKS or self.characters > _MOST_CHARACTERS

    def next(self) -> Vocabulary:
        """A new one, that looks into this one."""
        self._before = None
        return Vocabulary(self)

    def split(self, chunk: str) -> tuple[int, ...]:
        """The numbers of a chunk's words; new words are given one."""
        known = self._before.chunks.get(chunk) if self._before else None
        if known is not None:
            assert self._before is not None
            return tuple(self.number(self._before.words[n]) for n in known)
        words, marked = chunk_words(chunk)
        numbers = map(self.number, words)
        return (_MARK, *numbers) if marked else tuple(numbers)

    def number(self, word: str) -> int:
        """The number of a word."""
        number = self._numbers.get(word)
        if number is None:
            number = self._numbers[word] = len(self.words)
            self.words.append(word)
            self.characters += len(word)
            wordy = not PUNCTUATION_SET.issuperset(word)
            letter = wordy and (word.isalpha() or any(map(str.isalpha, word)))
            self._kinds.append(wordy * WORDY | letter * LETTER | _STOP_WORDS.get(word, 0))
            self.classes.append(_class(word))
        return number

    def numbers(self, text: str) -> np.ndarray:
        """The words of a text: shape (words,) int64."""
        numbers = np.array(list(chain.from_iterable(map(self.chunks.__getitem__, text.split()))), dtype=np.int64)
        if not numbers.all():
            numbers = np.array([self.number(word) for word in text_words(text) if not word.isspace()], dtype=np.int64)
        return numbers

    def tables(self) -> np.ndarray:
        """The length in characters and the kind of each word: shape (2, at least the words) int64."""
        wanted = len(self.words)
        if self._filled < wanted:
            if self._tables.shape[1] < wanted:
                grown = np.zeros((2, 2 * wanted), dtype=np.int64)
                grown[:, : self._filled] = self._tables[:, : self._filled]
                self._tables = grown
            new = slice(self._filled, wanted)
            self._tables[:, new] = list(map(len, self.words[new])), self._kinds[new]
            self._filled = wanted
        return self._tables


def _class(word: str) -> int:
    if word in SENTENCE_ENDS:
        return _END
    return _PUNCTUATION if all(unicodedata.category(c)[0] == "P" for c in word) else _OTHER


@dataclass(frozen=True)
class Words:
    """The words of a text. Their numbers mean something together with the vocabulary that gave them, which stays with
    them.
    """

    text: str
    numbers: np.ndarray
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def lengths(self) -> np.ndarray:
        """In characters: shape (words,) int64."""
        return self.vocabulary.tables()[0][self.numbers]

    @cached_property
    def kinds(self) -> np.ndarray:
        """Bits WORDY, LETTER, and one a stop word: shape (words,) int64."""
        return self.vocabulary.tables()[1][self.numbers]


_vocabulary = Vocabulary()


def _current() -> Vocabulary:
    global _vocabulary
    if _vocabulary.full():
        _vocabulary = _vocabulary.next()
    return _vocabulary


# Repetition, quality and FineWeb's rules ask for the same text one after the other.
@lru_cache(maxsize=2)
def numbered(text: str) -> Words:
    """The words of `text` as numbers."""
    vocabulary = _current()
    return Words(text, vocabulary.numbers(text), vocabulary)


def words(text: str) -> list[str]:
    """The words of `text`, punctuation marks among them, white space not."""
    vocabulary = _current()
    return list(map(vocabulary.words.__getitem__, vocabulary.numbers(text).tolist()))


def sentences(text: str) -> int:
    """How many sentences `text` has, by spaCy's sentencizer: a new one begins at the first word behind a sentence end
    that is not itself only punctuation (so a closing quotation mark still belongs to the old one).

    More white space than one space between two words is a word too; a sentence of nothing else is none.
    """
    chunks = text.split()
    found = _current().chunk_classes
    if " ".join(chunks) == text:
        classes = b"".join(map(found.__getitem__, chunks))
    else:
        classes = b"".join(_classes_with_gaps(text, found))
    if _MARKED in classes:
        classes = bytes(b"s"[0] if word.isspace() else _class(word) for word in text_words(text))
    classes = classes.rstrip(b"s")
    return 1 + len(_NEXT_SENTENCE.findall(classes)) if classes else 0


def _classes_with_gaps(text: str, found: _Classes) -> list[bytes]:
    parts = _WHITE_SPACE.split(text)
    # Only at the beginning of a text is a single space a word.
    first = [b"s"] if not parts[0] else []
    gaps = [b"" if gap == " " else b"s" for gap in parts[1::2]]
    classes = [found[chunk] if chunk else b"" for chunk in parts[::2]]
    return first + [item for pair in zip(classes, [*gaps, b""], strict=True) for item in pair]
