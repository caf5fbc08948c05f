"""Many examples in one row, none of them seeing another.

Positions restart and segments differ from example to example, so a packed row gives the sum of the losses that the
examples have alone. No example is ever cut: what does not fit is left out and counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from llmctl.train.batch import Batch
from llmctl.train.order import Shuffle


@dataclass
class Packed:
    """Rows of `length` tokens, (N, length) each, as `Batch` has them; `used` counts the tokens that are no padding."""

    ids: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    used: np.ndarray  # (N,)
    too_long: int

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Sequence[int]) -> Batch:
        """Those rows."""
        names = ("ids", "targets", "weights", "positions", "segments")
        tensors = {n: torch.from_numpy(np.ascontiguousarray(getattr(self, n)[list(rows)])) for n in names}
        return Batch(**tensors, tokens=int(self.used[list(rows)].sum()))


def pack(examples: Sequence[tuple[Sequence[int], Sequence[bool]]], length: int) -> Packed:
    """Pack (ids, mask) pairs into rows of `length` positions, best fit first for the longest.

    An example of n ids needs n-1 positions: each predicts the next id, and counts where the mask of that id says so.
    """
    sizes = [len(ids) - 1 for ids, _ in examples]
    rows = best_fit([(i, n) for i, n in enumerate(sizes) if 0 < n <= length], length)
    shape = (len(rows), length)
    found = Packed(
        *(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.float32)),
        *(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(len(rows), np.int64)),
        too_long=sum(n > length for n in sizes),
    )
    for row, members in enumerate(rows):
        at = 0
        for number, i in enumerate(members):
            ids, mask = examples[i]
            here = slice(at, at + sizes[i])
            found.ids[row, here], found.targets[row, here] = ids[:-1], ids[1:]
            found.weights[row, here] = mask[1:]
            found.positions[row, here], found.segments[row, here] = np.arange(sizes[i]), number
            at += sizes[i]
        found.segments[row, at:] = len(members)  # padding sees padding
        found.positions[row, at:] = np.arange(length - at)
        found.used[row] = at
    return found


def best_fit(sizes: Sequence[tuple[int, int]], length: int) -> list[list[int]]:
    """Rows of item numbers: the longest (item, size) first, each into the fullest row that has room for it.

    The spaces that some row has left are the bits of one integer, so finding the tightest is a shift and a lowest bit.
    """
    rows: list[list[int]] = []
    with_space: dict[int, list[int]] = defaultdict(list)
    spaces = 0
    for item, size in sorted(sizes, key=lambda pair: (-pair[1], pair[0])):
        fitting = spaces >> size
        if fitting:
            space = size + (fitting & -fitting).bit_length() - 1
            row = with_space[space].pop()
            if not with_space[space]:
                spaces ^= 1 << space
        else:
            row, space = len(rows), length
            rows.append([])
        rows[row].append(item)
        with_space[space - size].append(row)
        spaces |= 1 << (space - size)
    return rows


class PackedSource:
    """Packed rows, `rows` an update in a new order each epoch, at most `at_once` of them in one pass."""

    fixed_shape = True

    def __init__(self, packed: Packed, rows: int, at_once: int, seed: int) -> None:
        self.packed, self.rows, self.at_once = packed, rows, at_once
        self.order = Shuffle(len(packed), seed)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of update `step`."""
        drawn = [item for _, item in self.order.take(step * self.rows, self.rows)]
        return [self.packed.batch(drawn[at : at + self.at_once]) for at in range(0, len(drawn), self.at_once)]


def statistics(packed: Packed) -> dict[str, Any]:
    """What packing made of the examples, as figures."""
    total = packed.ids.size
    return {
        "rows": len(packed),
        "tokens": int(packed.used.sum()),
        "trained_tokens": int((packed.weights > 0).sum()),
        "filled": round(float(packed.used.sum()) / total, 4) if total else 0.0,
        "too_long": packed.too_long,
    }
