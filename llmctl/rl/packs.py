"""Replies packed into micro-batches of one shape: no padding is computed, and one compiled graph serves a whole run.

Several replies share a row, none seeing another (`segments`, restarting positions), as sft's examples do. What is known
of each token travels along, so that every loss has the terms that it has when each reply has a row of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llmctl.rl.collate import Rows
from llmctl.train.batch import Batch
from llmctl.train.packing import best_fit

_STEP = 32  # what widths are multiples of: the blocks of the attention kernels
_ROOM = 4  # replies of full length a row: what is left over at its end is then at most about a fifth of it
_WIDE = 1024  # tokens that no row needs to have more of for that
# Tokens of a pass on a CPU where every pass has to be full: the last one's empty rows are computed too. Where none is,
# larger ones are faster, since each casts the weights: 5,024 tokens of 64 replies (20 M parameters, bfloat16, one core)
# took 1.42 s in passes of 1,280 and 1.20 in one.
FULL_PASS = 2048


@dataclass(frozen=True)
class Shape:
    """What every micro-batch of a run looks like: (rows, width) tokens."""

    rows: int
    width: int


def width_for(longest: int, tokens: int) -> int:
    """Tokens of a row for replies (with their prompts) of at most `longest` and passes of at most `tokens`."""
    wide = max(longest, min(_ROOM * longest, _WIDE, tokens))
    return -(-wide // _STEP) * _STEP


def rows_for(count: int, width: int, tokens: int) -> int:
    """Rows of a pass of at most `tokens` so that `count` rows leave as few of the last pass empty as may be."""
    most = max(1, tokens // width)
    return min(range(most, (most - 1) // 2, -1), key=lambda n: -count % n)


def shape_for(rows: Rows, longest: int, tokens: int, together: int = 1) -> Shape:
    """The shape that suits these replies, and others of the same run; `together` as in `packed`."""
    width = width_for(max(longest, int(rows["lengths"].max())), tokens)
    return Shape(rows_for(len(_fit(rows, width, together)), width, tokens), width)


def packed(rows: Rows, shape: Shape, full: bool = False, together: int = 1) -> list[Batch]:
    """The replies as micro-batches, the last one filled up with empty rows if all are to be `full`. So many neighbours
    as `together` says share a row, whatever else is in it: the two of a comparison, whose loss is one.

    What `rows` has for each token goes along in `extra`; and `at` (B, T), the place of a position's token among those
    of `rows`, flat, `row`, which reply that is, and `units` (B,), the sum of those of a row's replies. Each reply's
    positions and segment are its own; padding has position 0 and a segment for itself.
    """
    members = _fit(rows, shape.width, together)
    count = -(-len(members) // shape.rows) * shape.rows if full else len(members)
    at, positions, segments = _places(rows, members, count, shape.width)
    there, found = at >= 0, at.clamp(min=0)
    cells = {k: torch.where(there, v.flatten()[found], 0) for k, v in rows.items() if v.ndim == 2}
    cells |= {"at": at, "row": found // rows["ids"].shape[1], "positions": positions, "segments": segments}
    cells["units"] = torch.tensor([float(rows["units"][m].sum()) for m in members] + [0.0] * (count - len(members)))
    passes = range(0, count, shape.rows)
    return [_batch({k: v[i : i + shape.rows] for k, v in cells.items()}) for i in passes]


def _fit(rows: Rows, width: int, together: int) -> list[list[int]]:
    """Which replies are in each row."""
    sizes = rows["lengths"].view(-1, together).sum(-1).tolist()
    found = best_fit([(i, n) for i, n in enumerate(sizes) if n], width)
    return [[i * together + j for i in row for j in range(together)] for row in found]


def _places(rows: Rows, members: list[list[int]], count: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """(count, width) each: which token of `rows` is where, or -1, its position, and its reply's number in the row."""
    lengths, longest = rows["lengths"].tolist(), rows["ids"].shape[1]
    at = torch.full((count, width), -1)
    positions, segments = torch.zeros_like(at), torch.zeros_like(at)
    for row, replies in enumerate(members):
        begin = 0
        for number, i in enumerate(replies):
            here = slice(begin, begin + lengths[i])
            positions[row, here] = torch.arange(lengths[i])
            at[row, here], segments[row, here] = positions[row, here] + i * longest, number
            begin += lengths[i]
        segments[row, begin:] = len(replies)
    return at, positions, segments


def _batch(cells: dict[str, Tensor]) -> Batch:
    ids, targets, weights, positions, segments = (
        cells.pop(name) for name in ("ids", "targets", "weights", "positions", "segments")
    )
    return Batch(ids, targets, weights, positions, segments, extra=cells, tokens=int((cells["at"] >= 0).sum()))
