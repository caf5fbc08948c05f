"""Texts that say nearly the same: the Jaccard similarity of their word triples."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

_WORDS = re.compile(r"\w+")
# A triple that stands in so many texts ("what is the") says little about any two, and would cost a comparison each.
_COMMON = 500


class Near:
    """`add` says whether a text is new: unlike every text that was added before by `alike` or more."""

    def __init__(self, alike: float) -> None:
        self.alike = alike
        self._sizes: list[int] = []
        self._holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._exact: set[str] = set()

    def add(self, text: str) -> bool:
        """True, and the text is remembered; False where it is a copy or nearly one."""
        words = _WORDS.findall(text.casefold())
        exact, triples = " ".join(words), shingles(words)
        if exact in self._exact or self._nearest(triples) >= self.alike:
            return False
        self._exact.add(exact)
        for triple in triples:
            if len(self._holders[triple]) < _COMMON:
                self._holders[triple].append(len(self._sizes))
        self._sizes.append(len(triples))
        return True

    def _nearest(self, triples: set[tuple[str, ...]]) -> float:
        shared = Counter(i for t in triples if t in self._holders for i in self._holders[t])
        return max((n / (len(triples) + self._sizes[i] - n) for i, n in shared.items()), default=0.0)


def shingles(words: list[str]) -> set[tuple[str, ...]]:
    """The word triples; of a text with fewer words, the whole."""
    if len(words) < 3:
        return {tuple(words)} if words else set()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}
