"""Who is a duplicate of whom: equal keys linked, links joined to clusters, the first of each cluster kept."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np


def equal_pairs(keys: np.ndarray) -> Iterator[tuple[int, int]]:
    """Neighbours (i, j), i < j, in every group of equal rows of `keys` (rows, columns): enough to connect the group."""
    if len(keys) < 2:
        return
    order = np.lexsort(keys.T)  # stable: within a group the indices ascend
    ordered = keys[order]
    for at in np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1)):
        yield int(order[at]), int(order[at + 1])


class Clusters:
    """Union-find over `size` documents. The root of a cluster is its first document, whatever the order of the
    links.
    """

    def __init__(self, size: int) -> None:
        self._parent = array("q", range(size))

    def link(self, i: int, j: int) -> None:
        """Put both into one cluster."""
        a, b = self.first(i), self.first(j)
        if a != b:
            self._parent[max(a, b)] = min(a, b)

    def first(self, i: int) -> int:
        """The first document of the cluster of `i`."""
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i
