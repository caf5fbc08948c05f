"""Learning the merges of byte-level BPE (arXiv:1508.07909): the vocabulary of `tokenizers`' trainer, sooner.

Words are counted first, so that each is looked at once however often it occurs. All their symbols lie in one array,
linked to their neighbours; for each pair there is a list of places where it may stand. A merge touches these places
alone, and a heap holds the pairs by their counts, looked up again when they come to the top.

`native/bpe.cpp` does it where there is a C++ compiler; `regex` and numpy, all places of a merge at once, where there is
none, and for a text that is too small to compile anything for. The merges are the same.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain

import numpy as np
from tokenizers import pre_tokenizers

from llmctl.model.published import from_byte_level, gpt4_pattern, to_byte_level
from llmctl.native import bpe as native

_PIECE = 1 << 20  # characters that are matched at once: the list of their words is held in memory
# Characters worth compiling for, 0.9 s of a core: `regex` and numpy take 1.1 for 2 MB and 8,192 tokens, 1.5 for 4.
_WORTH = 4_000_000
_CUT = re.compile(r"\n(?=\S)")  # no pattern of ours has a word across such a place
_LOW = (1 << 32) - 1

Learned = tuple[dict[str, int], list[tuple[str, str]]]


def learn(texts: Iterable[str], digits: int, size: int) -> Learned:
    """The vocabulary of at most `size` tokens, the 256 bytes first, and the merges that make it, in their order.

    The texts, without lone surrogates, are cut by `gpt4_pattern(digits)` and read once. The most frequent pair comes
    first; of equally frequent ones, that of the lowest ids. Needs the package `regex`.
    """
    first, rest = _begun(iter(texts))
    texts = chain(first, rest)
    if not native.available(compile=sum(map(len, first)) >= _WORTH):
        return learn_merges(count_words(texts, gpt4_pattern(digits)), size)
    words = native.Words(_kinds(), digits)
    for text in texts:
        for piece in _pieces(text):
            words.add(piece)
    made = _Vocabulary()
    alphabet = b"".join(map(from_byte_level, made.tokens))
    for left, right in zip(*words.merges(alphabet, size).T.tolist(), strict=True):
        made.merge(left, right)
    return made.ids, made.merges


def count_words(texts: Iterable[str], pattern: str) -> Counter[str]:
    """How often each piece that `pattern` cuts the texts into occurs. Needs the package `regex`."""
    import regex  # type: ignore[import-untyped]  # the classes of Unicode (\p{L}), which the standard library's lacks

    find = regex.compile(pattern).findall
    counts: Counter[str] = Counter()
    for text in texts:
        for piece in _pieces(text):
            counts.update(find(piece))
    return counts


def learn_merges(words: Counter[str], size: int) -> Learned:
    """What `learn` returns for words that are counted, by numpy."""
    made = _Vocabulary()
    if not words:
        return made.ids, []
    byte_ids = np.array([made.ids[to_byte_level(bytes([b]))] for b in range(256)])
    pairs = _Pairs(list(words.items()), byte_ids)
    while len(made.tokens) < size and (found := pairs.most_frequent()) is not None:
        pairs.merge(*found, made.merge(*found))
    return made.ids, made.merges


class _Vocabulary:
    """Tokens as byte-level vocabularies write them, the 256 bytes first, and the merges that made the others."""

    def __init__(self) -> None:
        self.tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.merges: list[tuple[str, str]] = []

    def merge(self, left: int, right: int) -> int:
        """Note the merge of two ids; the id of what it makes, which another pair may have made before."""
        pair = self.tokens[left], self.tokens[right]
        new = pair[0] + pair[1]
        if new not in self.ids:
            self.ids[new] = len(self.tokens)
            self.tokens.append(new)
        self.merges.append(pair)
        return self.ids[new]


@cache
def _kinds() -> np.ndarray:
    """(0x110000,) uint8: what `regex` takes each code point for. 50 ms."""
    import regex

    every = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    kinds = np.full(len(every), native.OTHER, np.uint8)
    for kind, runs in ((native.LETTER, r"\p{L}+"), (native.NUMBER, r"\p{N}+"), (native.SPACE, r"\s+")):
        for run in regex.finditer(runs, every):
            kinds[run.start() : run.end()] = kind
    kinds[[ord("\r"), ord("\n")]] = native.NEWLINE
    return kinds


def _begun(texts: Iterator[str]) -> tuple[list[str], Iterator[str]]:
    """The first texts, up to `_WORTH` characters and the text that reaches them, and the others."""
    first, size = [], 0
    for text in texts:
        first.append(text)
        size += len(text)
        if size >= _WORTH:
            break
    return first, texts


def _pieces(text: str) -> Iterator[str]:
    at = 0
    while len(text) - at > _PIECE and (cut := _CUT.search(text, at + _PIECE)):
        yield text[at : cut.end()]
        at = cut.end()
    yield text[at:]


class _Pairs:
    """The symbols of all words, and the pairs of neighbours. A pair (a, b) is the number a * 2**32 + b."""

    def __init__(self, words: list[tuple[str, int]], byte_ids: np.ndarray) -> None:
        encoded = [word.encode() for word, _ in words]
        lengths = np.array([len(e) for e in encoded], np.int64)
        self.symbol = byte_ids[np.frombuffer(b"".join(encoded), np.uint8)]  # -1 once it is part of its left neighbour
        self.weight = np.repeat(np.array([n for _, n in words], np.int64), lengths)
        places, ends = np.arange(len(self.symbol)), np.cumsum(lengths)
        self.next, self.before = places + 1, places - 1  # -1 at the ends of a word
        self.next[ends - 1] = -1
        self.before[ends - lengths] = -1
        self.flag = np.zeros(len(self.symbol), bool)
        self.counts: dict[int, int] = {}
        self.places: dict[int, list[np.ndarray]] = {}
        self.heap: list[tuple[int, int]] = []
        self._add(np.flatnonzero(self.next >= 0))

    def most_frequent(self) -> tuple[int, int] | None:
        """The next pair to merge; None where no two symbols are neighbours any more."""
        while self.heap:
            negative, pair = heapq.heappop(self.heap)
            count = self.counts.get(pair, 0)
            if count == -negative:
                return pair >> 32, pair & _LOW
            if count:
                heapq.heappush(self.heap, (-count, pair))
        return None

    def merge(self, a: int, b: int, new: int) -> None:
        """Make every `a` with a `b` behind it one symbol `new`."""
        pair = (a << 32) + b
        # No place is in a list twice: what stands there only grows, so a pair never comes back to it.
        at = np.concatenate(self.places.pop(pair))
        at = at[self.symbol[at] == a]
        behind = self.next[at]
        at = at[(behind >= 0) & (self.symbol[behind] == b)]
        if a == b:
            at = self._every_second(np.sort(at))
        behind = self.next[at]
        after = self.next[behind]
        followed = after >= 0
        self._remove(np.concatenate((self._before(at, behind), at, behind[followed])))
        del self.counts[pair]
        self.symbol[at], self.symbol[behind] = new, -1
        self.next[at] = after
        self.before[after[followed]] = at[followed]
        self._add(np.concatenate((self._before(at, at), at[followed])))

    def _before(self, at: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The places before `at` that are not among the `known` ones: two merges may be neighbours."""
        self.flag[known] = True
        found = self.before[at]
        found = found[(found >= 0) & ~self.flag[found]]
        self.flag[known] = False
        return found

    def _every_second(self, at: np.ndarray) -> np.ndarray:
        """Of places where a symbol is followed by itself, those that are merged: in a run, from the left."""
        if len(at) < 2:
            return at
        begins = np.concatenate(([True], self.next[at[:-1]] != at[1:]))
        order = np.arange(len(at))
        return at[(order - np.maximum.accumulate(np.where(begins, order, 0))) % 2 == 0]

    def _remove(self, at: np.ndarray) -> None:
        for pair, count, _ in self._grouped(at):
            self.counts[pair] -= count

    def _add(self, at: np.ndarray) -> None:
        """Count the pairs that begin at these places, and remember where they stand."""
        for pair, count, places in self._grouped(at):
            total = self.counts.get(pair, 0) + count
            self.counts[pair] = total
            self.places.setdefault(pair, []).append(places)
            heapq.heappush(self.heap, (-total, pair))

    def _grouped(self, at: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
        """Each pair that begins at one of these places: how often it occurs there, and the places."""
        if not len(at):
            return
        keys = (self.symbol[at] << 32) + self.symbol[self.next[at]]
        order = keys.argsort(kind="stable")
        keys, at = keys[order], at[order]
        begins = np.concatenate(([0], np.flatnonzero(keys[1:] != keys[:-1]) + 1))
        sums = np.add.reduceat(self.weight[at], begins).tolist()
        bounds = [*begins.tolist(), len(at)]
        for i, pair in enumerate(keys[begins].tolist()):
            yield pair, sums[i], at[bounds[i] : bounds[i + 1]]
