"""Log-likelihoods of continuations, with everything that several of them share computed once.

The choices of a question stand behind one copy of its context, side by side in one row, and each sees the context and
itself only: a tree of tokens in one attention mask. What all the rows begin with (few-shot examples, a description) is
run once and lies in front of them as keys and values. Logits are made only where a token is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

_TOKENS = 4096  # of a pass, padding included: large enough for the matrix units, small enough for the caches
_LOGITS = 1 << 25  # numbers of one block of logits: 128 MB
_PASS = 256  # tokens: what a pass of its own costs besides its arithmetic; fewer saved are not worth it
_PADDED = 48  # tokens of padding that cost what a pass more costs: products are at full speed from 64 rows on
_PADDING = -1

Scored = tuple[Sequence[int], int]
"""(ids, start): the tokens ids[start:] are scored, each after all that stand before it; 1 <= start <= len(ids)."""


@dataclass(frozen=True)
class Likelihood:
    """The natural log-probability of each scored token, and whether each was the likeliest one in its place."""

    logprobs: list[float]
    greedy: bool

    @property
    def total(self) -> float:
        """Of the whole continuation."""
        return float(sum(self.logprobs))


@dataclass
class _Row:
    """A group as one row: its tokens, their positions, and their branch (0: seen by all that follow)."""

    ids: np.ndarray
    positions: np.ndarray
    branches: np.ndarray
    places: list[np.ndarray]
    """Of each sequence: where in the row its scored tokens are predicted."""
    targets: list[np.ndarray]

    def cut(self, n: int) -> _Row:
        """Without the first `n` tokens, none of which predicts anything."""
        places = [p - n for p in self.places]
        return _Row(self.ids[n:], self.positions[n:], self.branches[n:], places, self.targets)


class _Front:
    """The cache that the transformer speaks to. While `recording` it keeps what is computed; then it stands in front
    of every row.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.recording = False

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, T, E) in, (B, K, S, E) out."""
        if self.recording:
            self.kept[layer] = k, v
        if self.recording or layer not in self.kept:
            return k, v
        front = [t.expand(len(k), -1, -1, -1) for t in self.kept[layer]]
        return torch.cat([front[0], k], 2), torch.cat([front[1], v], 2)


@torch.inference_mode()
def likelihoods(model: Any, groups: Sequence[Sequence[Scored]]) -> list[list[Likelihood]]:
    """The likelihoods of each group's sequences, in order. Those of one group share what they have in common.

    No sequence without its last token may be longer than the context of `model` (a `Transformer` in evaluation mode).
    """
    rows = [_row(group) for group in groups]
    device = next(model.parameters()).device
    found: list[list[Likelihood]] = [[] for _ in groups]
    for members, shared in _families([_trunk(row, group) for row, group in zip(rows, groups, strict=True)]):
        front = _Front()
        if shared:
            front.recording = True
            ids = torch.from_numpy(rows[members[0]].ids[:shared]).to(device)[None]
            model(ids, positions=torch.arange(shared, device=device)[None], cache=front)
            front.recording = False
        mine = [rows[i].cut(shared) for i in members]
        for part in _batches(mine):
            for i, scored in zip(part, _run(model, [mine[i] for i in part], front, shared, device), strict=True):
                found[members[i]] = scored
    return found


def common_length(sequences: Sequence[list[int]]) -> int:
    """How many tokens all of `sequences` (at least one) begin with: as many as the least and the greatest share."""
    least, greatest = min(sequences), max(sequences)
    differs = (n for n, (a, b) in enumerate(zip(least, greatest, strict=False)) if a != b)
    return next(differs, min(len(least), len(greatest)))


def _row(group: Sequence[Scored]) -> _Row:
    inputs = [list(ids[:-1]) for ids, _ in group]
    common = common_length(inputs)
    pieces, branches, places, begin = [inputs[0][:common]], [np.zeros(common, np.int64)], [], common
    for n, (ids, (whole, start)) in enumerate(zip(inputs, group, strict=True), 1):
        at = np.arange(start - 1, len(whole) - 1)
        places.append(np.where(at < common, at, at - common + begin))
        pieces.append(ids[common:])
        branches.append(np.full(len(ids) - common, n, np.int64))
        begin += len(ids) - common
    positions = np.concatenate([np.arange(common), *(np.arange(common, len(ids)) for ids in inputs)])
    targets = [np.array(ids[start:], np.int64) for ids, start in group]
    return _Row(
        np.array(list(chain.from_iterable(pieces)), np.int64), positions, np.concatenate(branches), places, targets
    )


def _trunk(row: _Row, group: Sequence[Scored]) -> list[int]:
    """The tokens that a row may share with others: none behind the first that predicts a scored one."""
    first = min(start for _, start in group) - 1
    return [int(i) for i in row.ids[: min(first, int((row.branches == 0).sum()))]]


def _families(trunks: Sequence[list[int]]) -> list[tuple[list[int], int]]:
    """(rows, how many tokens they begin with), so that few tokens are run: rows in the order of their tokens are parted
    where neighbours share least, as long as the parts save more than the whole. What saves nothing is one family.
    """
    order = sorted(range(len(trunks)), key=lambda i: trunks[i])
    same = [common_length([trunks[i], trunks[j]]) for i, j in pairwise(order)]

    def best(begin: int, end: int) -> tuple[int, list[tuple[int, int, int]]]:
        """(tokens saved, families as (begin, end, shared)) among the sorted rows from `begin` to `end`."""
        if end - begin < 2:
            return 0, []
        least = min(same[begin : end - 1])
        whole = max(0, (end - begin - 1) * least - _PASS)
        cuts = [begin, *(i + 1 for i in range(begin, end - 1) if same[i] == least), end]
        parts = [best(low, high) for low, high in pairwise(cuts)]
        saved = sum(part[0] for part in parts)
        return (saved, [f for part in parts for f in part[1]]) if saved > whole else (whole, [(begin, end, least)])

    families = [(order[begin:end], n) for begin, end, n in best(0, len(order))[1] if (end - begin - 1) * n > _PASS]
    alone = sorted(set(order).difference(*(members for members, _ in families)))
    return families + ([(alone, 0)] if alone else [])


def _batches(rows: Sequence[_Row]) -> list[list[int]]:
    """Which rows run together, so that the least padding and the fewest passes are run: neighbours in length, the
    longest first, parted where that is cheapest (dynamic programming over the sorted rows).
    """
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].ids), i))
    widths = [len(rows[i].ids) for i in order]
    cost, begin = [0], [0]
    for end in range(1, len(order) + 1):
        least = None
        for first in range(end - 1, -1, -1):
            tokens = (end - first) * widths[first]
            if least is not None and tokens > _TOKENS:
                break
            if least is None or cost[first] + tokens + _PADDED < least[0]:
                least = cost[first] + tokens + _PADDED, first
        assert least is not None
        cost.append(least[0])
        begin.append(least[1])
    found: list[list[int]] = []
    end = len(order)
    while end:
        found.append(order[begin[end] : end])
        end = begin[end]
    return found[::-1]


def _run(model: Any, rows: Sequence[_Row], front: _Front, shared: int, device: torch.device) -> list[list[Likelihood]]:
    width = len(rows[0].ids)
    ids, positions, branches = (np.zeros((len(rows), width), np.int64) for _ in range(3))
    branches[:] = _PADDING
    for n, row in enumerate(rows):
        size = len(row.ids)
        ids[n, :size], positions[n, :size], branches[n, :size] = row.ids, row.positions, row.branches
    if shared or (branches > 0).any():
        front.mask = _mask(torch.from_numpy(branches).to(device), shared)
        hidden = model(torch.from_numpy(ids).to(device), torch.from_numpy(positions).to(device), cache=front)
    else:
        hidden = model(torch.from_numpy(ids).to(device))
    where = [n * width + places for n, row in enumerate(rows) for places in row.places]
    targets = [t for row in rows for t in row.targets]
    logprobs, likeliest = _logprobs(model, hidden.flatten(0, 1), np.concatenate(where), np.concatenate(targets))
    cuts = np.cumsum([len(t) for t in targets])[:-1]
    made = iter(
        Likelihood(p.tolist(), bool(g.all()))
        for p, g in zip(np.split(logprobs, cuts), np.split(likeliest, cuts), strict=True)
    )
    return [[next(made) for _ in row.places] for row in rows]


def _mask(branches: Tensor, shared: int) -> Tensor:
    """(B, 1, T, shared + T) bool: a token sees what lies in front, the trunk before it, and its own branch."""
    rows, width = branches.shape
    at = torch.arange(width, device=branches.device)
    mine, theirs = branches[:, :, None], branches[:, None, :]
    seen = (at[None, :] <= at[:, None]) & ((theirs == 0) | (theirs == mine))
    ahead = torch.ones(rows, width, shared, dtype=torch.bool, device=branches.device)
    return torch.cat([ahead, seen], 2)[:, None]


def _logprobs(model: Any, hidden: Tensor, places: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of `targets` (N,) at `places` (N,) of `hidden` (M, D): the log-probability, and whether it is the likeliest."""
    unique, back = np.unique(places, return_inverse=True)
    size = max(1, _LOGITS // model.config.vocab_size)
    logprobs, likeliest = np.zeros(len(targets)), np.zeros(len(targets), bool)
    for at in range(0, len(unique), size):
        mine = np.flatnonzero((back >= at) & (back < at + size))
        logits = model.logits(hidden[torch.from_numpy(unique[at : at + size]).to(hidden.device)])
        row = torch.from_numpy(back[mine] - at).to(hidden.device)
        wanted = torch.from_numpy(targets[mine]).to(hidden.device)
        logprobs[mine] = (logits[row, wanted] - logits.logsumexp(-1)[row]).double().cpu().numpy()
        likeliest[mine] = (logits.argmax(-1)[row] == wanted).cpu().numpy()
    return logprobs, likeliest
