"""Shuffled order without replacement, as a pure function of how much was drawn: resume needs no loader state."""

from __future__ import annotations

import numpy as np


class Shuffle:
    """Items 0..n-1 drawn epoch after epoch, each epoch in its own seeded order.

    `take(start, count)` gives draws start..start+count-1 of that endless sequence.
    """

    def __init__(self, n: int, seed: int) -> None:
        assert n > 0, "nothing to draw from"
        self.n, self.seed = n, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def take(self, start: int, count: int) -> list[tuple[int, int]]:
        """The draws as (epoch, item)."""
        found = []
        for i in range(start, start + count):
            epoch, place = divmod(i, self.n)
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = np.random.default_rng((self.seed, epoch)).permutation(self.n)
            found.append((epoch, int(self._order[place])))
        return found
