r"""Words and sentences, as every rule of the recipe counts them, and as numbers that NumPy can count.

FineWeb counts the tokens of spaCy's blank English tokenizer (`llmctl.filter.word_split` has its rules): punctuation
marks are words of their own, contractions are split ("do" "n't"), numbers, addresses and abbreviations are not.

A text is cut at white space and each chunk is looked up before it is split: texts repeat their chunks, so that nearly
all the work is a look-up in a dictionary. A chunk's words are numbers there, and what a rule asks of a word (its
length, whether it has a letter) is asked once and lies in a table by that number.

The dictionary lives as long as the process and is bounded: full, it becomes the one before, which is still looked into
for the chunks that come again, and the one before that is dropped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, chain

import numpy as np

from llmctl.filter.characters import PUNCTUATION_SET, SENTENCE_ENDS
from llmctl.filter.word_split import GAP, chunk_words, piece_words, text_words

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


class Vocabulary(dict[str, tuple[int, ...]]):
    """Chunk to the numbers of its words, found where it is missing; and the words met so far, by number."""

    def __init__(self, before: Vocabulary | None = None) -> None:
        self.words = [""]
        self.classes = bytearray([_MARKED])
        self.characters = 0
        self._numbers = {"": _MARK}
        self._before = before
        self._kinds: list[int] = [0]
        self._tables = np.zeros((2, 1), dtype=np.int64)
        self._filled = 1

    def full(self) -> bool:
        """Whether it is time for another one."""
        return len(self) > _MOST_CHUNKS or self.characters > _MOST_CHARACTERS

    def next(self) -> Vocabulary:
        """A new one, that looks into this one."""
        self._before = None
        return Vocabulary(self)

    def __missing__(self, chunk: str) -> tuple[int, ...]:
        numbers = self._split(chunk)
        if len(chunk) <= _CACHED_LENGTH:
            self[chunk] = numbers
        return numbers

    def _split(self, chunk: str) -> tuple[int, ...]:
        """The numbers of a chunk's words; new words are given one."""
        before = self._before
        if before is not None and chunk in before:
            return tuple(self.number(before.words[n]) for n in before[chunk])
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

    def numbers(self, text: str) -> tuple[np.ndarray, list[int]]:
        """The words of a text, shape (words,) int64, and how many of them end with each chunk, from 0 for none; empty
        where the words are not simply those of the chunks.
        """
        found = list(map(self.__getitem__, text.split()))
        numbers = list(chain.from_iterable(found))
        ends = list(accumulate(map(len, found), initial=0))
        if _MARK in numbers:
            numbers, ends = [n for piece in GAP.split(text)[::2] for n in self._of_piece(piece)], []
        return np.array(numbers, dtype=np.int64), ends

    def _of_piece(self, piece: str) -> list[int]:
        """The words of chunks with one space between each, which only here can change one another."""
        numbers = [n for chunk in piece.split() for n in self[chunk]]
        if _MARK in numbers:
            numbers = [self.number(word) for word in piece_words(piece) if word != " "]
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
    chunk_ends: list[int]
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

    @cached_property
    def ends(self) -> np.ndarray:
        """Characters, white space not counted, before each word and at last of all: shape (words + 1,) int64."""
        return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(self.lengths)))

    @cached_property
    def _classes(self) -> bytes:
        return np.frombuffer(self.vocabulary.classes, dtype=np.uint8)[self.numbers].tobytes()

    def line_classes(self, line: str, chunks: Sequence[str], last: int) -> bytes:
        """`classes` of a line of the text whose chunks, the `last` of the text behind them, were `chunks` before
        anything was taken out of the line.
        """
        if self.chunk_ends and " ".join(chunks) == line:
            return self._classes[self.chunk_ends[last - len(chunks)] : self.chunk_ends[last]]
        return classes(line)


_vocabulary = Vocabulary()


def _current() -> Vocabulary:
    global _vocabulary
    if _vocabulary.full():
        _vocabulary = _vocabulary.next()
    return _vocabulary


# Repetition, quality and the rules of the lines ask for the same text one after the other.
@lru_cache(maxsize=1)
def numbered(text: str) -> Words:
    """The words of `text` as numbers."""
    vocabulary = _current()
    return Words(text, *vocabulary.numbers(text), vocabulary)


def words(text: str) -> list[str]:
    """The words of `text`, punctuation marks among them, white space not."""
    vocabulary = _current()
    return list(map(vocabulary.words.__getitem__, vocabulary.numbers(text)[0].tolist()))


def classes(text: str) -> bytes:
    """What the words of `text` are to spaCy's sentencizer, a byte each: `e` ends a sentence, `p` is only punctuation,
    `s` is white space (more than the one space between two words is a word too), `w` any other.
    """
    vocabulary = _current()
    # Only at the beginning of a text is a single space a word.
    parts = _WHITE_SPACE.split(" " + text if text[:1] == " " else text)
    found = b"".join(
        (b"" if part == " " else b"s") if at % 2 else bytes(vocabulary.classes[n] for n in vocabulary[part])
        for at, part in enumerate(parts)
        if part
    )
    if _MARKED in found:
        return bytes(b"s"[0] if word.isspace() else _class(word) for word in text_words(text))
    return found


def count_sentences(lines: Iterable[bytes]) -> int:
    """The sentences of some lines, by their `classes`: a new one begins at the first word behind a sentence end that is
    not itself only punctuation (so a closing quotation mark still belongs to the old one). A sentence of nothing but
    white space is none.
    """
    kept = [line for line in (line.rstrip(b"s") for line in lines) if line]
    return len(kept) + len(_NEXT_SENTENCE.findall(b"\n".join(kept)))


def sentences(text: str) -> int:
    """How many sentences `text` has."""
    return count_sentences([classes(text)])


_counted: dict[str, int] = {}


def remember_count(text: str, lines: Iterable[bytes]) -> None:
    """Spares `count` the counting of the next text, whose lines are known by their `classes`."""
    _counted.clear()
    _counted[text] = sum(len(line) - line.count(b"s") for line in lines)


def count(text: str) -> int:
    """How many words `text` has."""
    known = _counted.get(text)
    return len(numbered(text)) if known is None else known
