"""py3langid, which knows 140 languages without a download: what it says, bit for bit, in a third of its time.

It counts byte sequences with an automaton that reads one byte at a time (Lui & Baldwin 2012, langid.py; Aho & Corasick
1975), and that loop takes half of its time. The state of such an automaton depends on the last few bytes alone (six,
in this model), so NumPy finds the states behind all bytes of a text at once: it starts at the root that many bytes
before each of them. The other half is its table of weights, which is kept in float16 and converted at every text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

_PIECE = 1 << 18  # bytes walked at once: 8 MB of intermediate values


@lru_cache(maxsize=1)  # unpacking the model takes a second
def scorer() -> Callable[[str], dict[str, float]]:
    """A function from a text to the probability of every language; languages of two scripts are one.

    An automaton of another kind (a later version's) is left to walk for itself.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    try:
        return Scorer(identifier)
    except (_OtherAutomaton, AttributeError):
        return lambda text: dict(identifier.rank(text))


class _OtherAutomaton(Exception):
    """Its states do not depend on the last few bytes alone."""


class Scorer:
    """The probabilities that `identifier.rank` gives, in the order of its classes."""

    def __init__(self, identifier: Any) -> None:
        self._encode = identifier._encode
        self._walk = Walk(identifier.tk_nextmove, identifier.tk_row, identifier.tk_output)
        self._weights, self._prior = identifier.nb_ptc.astype(np.float32), identifier.nb_pc
        self._classes, self._aliases = identifier.nb_classes, identifier._alias_pairs
        # Where each feature of a text stands; only what the text at hand has written is read.
        self._place = np.zeros(len(self._weights), np.int64)

    def __call__(self, text: str) -> dict[str, float]:
        """Naive Bayes over the features found, flattened by the length of the text."""
        data = self._encode(text)
        scores = self._likelihood(self._walk(data)) * np.float32(1.0 / math.sqrt(len(data) or 1))
        np.exp(scores - scores.max(), out=scores)
        scores /= scores.sum()
        for first, other in self._aliases:
            scores[first] += scores[other]
            scores[other] = 0.0
        # The first of two columns of the same name holds the sum, so it goes in last.
        return dict(zip(reversed(self._classes), reversed(scores.tolist()), strict=True))

    def _likelihood(self, features: np.ndarray) -> np.ndarray:
        if not len(features):
            return np.zeros(len(self._classes), np.float32)
        # In the order in which they first appear, as py3langid adds them up: float32 sums depend on it.
        steps = np.arange(len(features))
        self._place[features[::-1]] = steps[::-1]
        found = features[self._place[features] == steps]
        self._place[found] = np.arange(len(found))
        counts = np.bincount(self._place[features]).astype(np.float32)
        return np.asarray(np.log1p(counts) @ self._weights[found] + self._prior)


class Walk:
    """The features that an automaton emits on a text, in order.

    `moves` holds rows of 256 next states, `rows` the row of every state, `emits` its feature or a negative number.
    Raises _OtherAutomaton where the state does not depend on the last `self.memory` bytes alone.
    """

    def __init__(self, moves: Any, rows: Any, emits: Any) -> None:
        self._moves = np.frombuffer(moves, np.uint32).astype(np.int32)
        self._bases = np.asarray(rows, np.int32) << 8
        self._emits = np.asarray(emits, np.int32)
        self.memory = max(_depth(self._moves.reshape(-1, 256), np.asarray(rows)), 3)  # two and one more: see below
        root = self._moves[self._bases[0] : self._bases[0] + 256]
        still = np.flatnonzero(root == 0)
        if not len(still):
            raise _OtherAutomaton
        self._before = np.full(self.memory - 1, still[0], np.uint8)  # before the text, where the root stays the root
        # The bases of the states behind the first two bytes, from the root: most of a walk's way in a small table.
        self._two = self._bases[self._moves[self._bases[root][:, None] + np.arange(256)]].ravel()

    def __call__(self, data: bytes) -> np.ndarray:
        """Shape (features found,) int32."""
        padded = np.concatenate([self._before, np.frombuffer(data, np.uint8)])
        pieces = [self._piece(padded[at : at + _PIECE + self.memory - 1]) for at in range(0, len(data), _PIECE)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int32)

    def _piece(self, data: np.ndarray) -> np.ndarray:
        wide, n = data.astype(np.int32), len(data) - self.memory + 1
        bases = self._two.take((wide[:n] << 8) + wide[1 : n + 1])
        states = np.zeros(0, np.int32)
        for step in range(2, self.memory):
            states = self._moves.take(bases + wide[step : step + n])
            bases = self._bases.take(states)
        found = self._emits.take(states)
        return found[found >= 0]


def _depth(moves: np.ndarray, rows: np.ndarray) -> int:
    """How many bytes the automaton remembers: the depth of the trie of its sequences.

    It is one of Aho and Corasick's if the row of every state differs from that of the state of its longest proper
    suffix in moves to new, deeper states only; those go behind the shorter state's in the same way.
    """
    depths, suffixes = np.full(len(rows), -1), np.zeros(len(rows), np.int64)
    depths[0], depth, level = 0, 0, np.zeros(1, np.int64)
    while True:
        deeper = []
        for at in range(0, len(level), 4096):
            some = level[at : at + 4096]
            # The root has no suffix; all its moves that do not stay are to new states.
            shorter = moves[rows[suffixes[some]]] if depth else np.zeros((1, 256), np.int64)
            ours = moves[rows[some]]
            states, byte = np.nonzero(ours != shorter)
            new = ours[states, byte]
            if (depths[new] >= 0).any():
                raise _OtherAutomaton
            depths[new], suffixes[new] = depth + 1, shorter[states, byte] if depth else 0
            deeper.append(new)
        level = np.concatenate(deeper)
        if len(np.unique(level)) != len(level):
            raise _OtherAutomaton
        if not len(level):
            return depth
        depth += 1
