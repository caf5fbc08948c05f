"""Text to words, as spaCy's English tokenizer does it.

The algorithm is that of spaCy 3.8 (`spacy/tokenizer.pyx`; MIT licence, Explosion), written anew so that no rule of the
recipe needs spaCy installed: a string between white space loses what comes off its front and its end, one at a time,
till nothing does or the rest is known by heart; then the rest is an address, or is split in the middle. At last known
strings that the splitting has cut are put together again.

That last stage sees the words of the whole text, so a chunk of text is not always split the same way: of "x:) )" the
first bracket stays alone, because ":) )" is longer than ":)", though it is then not found for its space. `chunk_words`
says whether a chunk is one of the few for which that can matter; `text_words` is right for every text.

Time grows with the length of a chunk, not with its square: a megabyte without a space takes seconds. spaCy's own grows
with the square.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set

from llmctl.filter.word_classes import HOST, INFIX, LONGEST_SUFFIX, PREFIX, SCHEME, SUFFIX
from llmctl.filter.word_exceptions import exceptions

Known = Mapping[str, tuple[str, ...]]

_KNOWN: Known = exceptions()
_LONGEST_KNOWN = max(map(len, _KNOWN))
# Longer strings are not copied for a look, which would take the square of their length.
_SHORT = 64
# White space that is more than the one space between two words is a word of its own to spaCy.
GAP = re.compile(r"(\s{2,}|[^\S ])")


def chunk_words(chunk: str) -> tuple[tuple[str, ...], bool]:
    """The words of a chunk without white space, and whether its neighbours could change them."""
    known = _KNOWN.get(chunk)
    if known is not None:
        return known, False
    if chunk.isascii() and chunk.isalpha():
        return (chunk,), False
    words = _split(chunk)
    spans = _spans(words)
    return (tuple(_joined(words, spans)), True) if spans else (tuple(words), False)


def text_words(text: str) -> list[str]:
    """The words of a text, its white space among them where spaCy has a token for it."""
    found: list[str] = []
    for at, piece in enumerate(GAP.split(text)):
        if at % 2 == 1:
            # One space belongs to the word before it.
            gap = piece[1:] if piece[0] == " " and found else piece
            found.append(gap)
        elif piece:
            found += piece_words(piece)
    return found


def piece_words(piece: str) -> list[str]:
    """The words of a text without gaps: of chunks with one space between each."""
    words: list[str] = []
    gaps: set[int] = set()
    if piece[0] == " ":  # only at the beginning of a text
        words.append(" ")
    for chunk in piece.split():
        gaps.add(len(words))
        words += _KNOWN.get(chunk) or _split(chunk)
    return _joined(words, _spans(words, gaps))


def _split(chunk: str, known: Known = _KNOWN) -> list[str]:
    """The words before known strings are put together."""
    front: list[str] = []
    back: list[str] = []
    start, end = 0, len(chunk)
    while start < end and not _is_settled(known, chunk, start, end):
        prefix = PREFIX.match(chunk, start, end)
        cut = prefix.end() if prefix else start
        if prefix and _is_in(known, chunk, cut, end):
            front.append(prefix.group())
            start = cut
            break
        length = _suffix(chunk, cut, end)
        if length:
            back.append(chunk[end - length : end])
            if _is_in(known, chunk, start, end - length):
                end -= length
                break
        if prefix:
            front.append(prefix.group())
        elif not length:
            break
        start, end = cut, end - length
    if start < end:
        front += _middle(chunk[start:end], known)
    return front + back[::-1]


def _is_settled(known: Known, chunk: str, start: int, end: int) -> bool:
    """Whether nothing comes off: known by heart, or letters alone (most of what is left, and quickly seen)."""
    if end - start > _SHORT:
        return False
    rest = chunk[start:end]
    return rest in known or (rest.isascii() and rest.isalpha())


def _is_in(known: Known, chunk: str, start: int, end: int) -> bool:
    return 0 < end - start <= _LONGEST_KNOWN and chunk[start:end] in known


def _suffix(chunk: str, start: int, end: int) -> int:
    """The length of what comes off the end; what lies before `start` is not looked at."""
    dots = end
    while dots > start and chunk[dots - 1] == ".":
        dots -= 1
    if end - dots >= 2:
        return end - dots
    # Three more characters than the longest: nothing behind them can look further back.
    found = SUFFIX.search(chunk[max(start, end - LONGEST_SUFFIX - 3) : end])
    return len(found.group()) if found else 0


def _middle(rest: str, known: Known) -> Sequence[str]:
    """What is left between front and end: known, an address, or split by infixes."""
    if rest in known:
        return known[rest]
    if rest.isascii() and rest.isalnum():
        return (rest,)
    if "." in rest and _is_address(rest):
        return (rest,)
    words: list[str] = []
    start = 0
    for infix in INFIX.finditer(rest):
        at = infix.start()
        if at == 0:
            continue
        if at > start:
            words.append(rest[start:at])
        words.append(infix.group())
        start = infix.end()
    if start < len(rest):
        words.append(rest[start:])
    return words


def _is_address(text: str) -> bool:
    """A host stands at the beginning, behind a scheme, or behind any `@` (what stands before it is free)."""
    if HOST.match(text):
        return True
    scheme = SCHEME.match(text)
    if scheme and HOST.match(text, scheme.end()):
        return True
    return any(HOST.match(text, at.end()) for at in re.finditer("@", text) if at.start())


def _spans(words: Sequence[str], gaps: Set[int] = frozenset()) -> list[tuple[int, int]]:
    """Where words are to be replaced by those of a known string: (first, behind the last), in order.

    Longer ones first, then earlier ones; even one that is not taken keeps its words from shorter ones. `gaps` are the
    words that have a space before them: a string across one is not known, but keeps its words too.
    """
    found = []
    for at, word in enumerate(words):
        for pattern in _PATTERNS.get(word, ()):
            if tuple(words[at : at + len(pattern)]) == pattern:
                found.append((-len(pattern), at))
    taken: set[int] = set()
    spans = []
    for size, at in sorted(found):
        end = at - size
        known = tuple(words[at:end])
        free = at not in taken and end - 1 not in taken and gaps.isdisjoint(range(at + 1, end))
        if free and _KNOWN["".join(known)] != known:
            spans.append((at, end))
        taken.update(range(at, end))
    return sorted(spans)


def _joined(words: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[str]:
    joined: list[str] = []
    last = 0
    for start, end in spans:
        joined += words[last:start]
        joined += _KNOWN["".join(words[start:end])]
        last = end
    return joined + list(words[last:])


def _patterns() -> dict[str, list[tuple[str, ...]]]:
    """What splitting would make of the known strings that it cuts, by their first word."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for known in _KNOWN:
        if PREFIX.match(known) or _suffix(known, 0, len(known)) or INFIX.search(known):
            pattern = tuple(_split(known, {}))
            found.setdefault(pattern[0], []).append(pattern)
    return found


_PATTERNS = _patterns()
