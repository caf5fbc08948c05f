"""Who is a duplicate of whom: links joined to clusters, the first document of each cluster its root."""

from __future__ import annotations

import numpy as np

_ROWS = 1 << 20  # documents at once


class Clusters:
    """Union-find over `size` documents, 8 bytes each. The root of a cluster is its first document, whatever the order
    of the links: a parent is never behind its child.
    """

    def __init__(self, size: int) -> None:
        self._parent = np.arange(size, dtype=np.int64)

    def link(self, i: np.ndarray, j: np.ndarray) -> None:
        """Put `i[k]` and `j[k]` into one cluster, for every k. Both (links,) int64."""
        parent = self._parent
        while len(i):
            a, b = self.first(i), self.first(j)
            apart = a != b
            i, j = np.minimum(a[apart], b[apart]), np.maximum(a[apart], b[apart])
            # A root with links to several smaller ones takes the smallest; the others are for the next round.
            np.minimum.at(parent, j, i)

    def first(self, i: np.ndarray) -> np.ndarray:
        """The first document of the cluster of each `i`."""
        parent = self._parent
        root = parent[i]
        while True:
            above = parent[root]
            if np.array_equal(above, root):
                parent[i] = root
                return root
            parent[root] = parent[above]  # the way up halves
            root = above

    def firsts(self) -> np.ndarray:
        """(documents,) int64: `first` of every document. This is the array of this object, not a copy."""
        for at in range(0, len(self._parent), _ROWS):
            self.first(np.arange(at, min(at + _ROWS, len(self._parent))))
        return self._parent
