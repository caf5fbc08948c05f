"""The KV cache of a running batch.

Rows are aligned on the right: a shorter prompt begins in a later column, so every row writes its next token into the
same column and a write is one slice a layer. Rotary positions are counted from each row's own beginning, so nothing
depends on the padding. Columns before a row's beginning are masked; a padding query sees only itself, which keeps its
values finite (a NaN there would reach real tokens as 0 * NaN).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_GROW = 64  # columns added at once at the least; growth doubles, so a long answer costs one copy of its cache in all


class KVCache:
    """Keys and values (B, kv_heads, S, head_dim) of each layer, with the protocol that `Transformer.forward` speaks.

    `begins` (B,) is the column where each row begins. Before a forward pass of T tokens call `extend(T)`; the model
    then calls `update` once a layer and reads `mask`.
    """

    def __init__(
        self, layers: int, kv_heads: int, head_dim: int, begins: Tensor, dtype: torch.dtype, columns: int
    ) -> None:
        self.begins = begins
        self.start = self.end = 0
        self.mask: Tensor | None = None
        # Zeros, here and where it grows: what is masked must still be finite.
        shape = (len(begins), kv_heads, max(1, columns), head_dim)
        self.keys = [_zeros(shape, dtype, begins.device) for _ in range(layers)]
        self.values = [_zeros(shape, dtype, begins.device) for _ in range(layers)]
        self._ragged = bool((begins > 0).any())

    def extend(self, tokens: int) -> Tensor:
        """Make room for `tokens` further columns. Returns their positions (B, tokens), 0 in the padding."""
        self.advance(tokens)
        columns = torch.arange(self.start, self.end, device=self.begins.device)
        self.mask = self._mask(columns)
        return (columns - self.begins[:, None]).clamp(min=0)

    def advance(self, tokens: int) -> None:
        """Make room for `tokens` further columns, for the kernel, which needs no mask and no positions."""
        self.start, self.end = self.end, self.end + tokens
        self._reserve(self.end)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (B, kv_heads, T, head_dim); returns all so far (B, kv_heads, S, head_dim)."""
        self.keys[layer][:, :, self.start : self.end] = k
        self.values[layer][:, :, self.start : self.end] = v
        return self.keys[layer][:, :, : self.end], self.values[layer][:, :, : self.end]

    def begin_with(self, front: KVCache, columns: int) -> None:
        """Fill the first `columns` columns of this empty cache with the beginning of `front`, one row that all rows
        begin with: row r takes its first columns - begins[r] tokens. `columns` are no more than `front` has.
        """
        place = (torch.arange(columns, device=self.begins.device) - self.begins[:, None]).clamp(min=0)
        for mine, theirs in ((self.keys, front.keys), (self.values, front.values)):
            for kept, t in zip(mine, theirs, strict=True):
                kept[:, :, :columns] = t[0][:, place].transpose(0, 1)
        self.start = self.end = columns

    def fill(self, rows: Tensor, other: KVCache, sources: Tensor) -> None:
        """Make row `rows[i]` a copy of row `sources[i]` of `other`, ending in the same column as before."""
        begin = self.end - other.end
        for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
            for t, o in zip(mine, theirs, strict=True):
                t[rows, :, begin : self.end] = o[sources, :, : other.end]

    def shrink(self, holes: Tensor, movers: Tensor, rows: int) -> None:
        """Put the rows `movers` into the places `holes` and keep the first `rows` rows.

        Only what moves is copied: taking a few rows out costs those few and not the whole cache.
        """
        for kept in (self.keys, self.values):
            for i, t in enumerate(kept):
                t[holes, :, : self.end] = t[movers, :, : self.end]
                kept[i] = t[:rows]
        self.begins[holes] = self.begins[movers]
        self.begins = self.begins[:rows]

    def join(self, other: KVCache) -> None:
        """Take the rows of `other` in behind its own, all aligned on the right again; columns nobody uses are dropped.

        Costs one copy of both, which is about what one step of the joined batch reads anyhow.
        """
        spare, spare_other = int(self.begins.min()), int(other.begins.min())
        end = max(self.end - spare, other.end - spare_other)
        room = (len(self.begins) + len(other.begins), *self.keys[0].shape[1:2], end + _GROW, self.keys[0].shape[3])
        for mine, theirs in ((self.keys, other.keys), (self.values, other.values)):
            for i, (t, o) in enumerate(zip(mine, theirs, strict=True)):
                joined = _zeros(room, t.dtype, t.device)
                joined[: len(t), :, end - self.end + spare : end] = t[:, :, spare : self.end]
                joined[len(t) :, :, end - other.end + spare_other : end] = o[:, :, spare_other : other.end]
                mine[i] = joined
        self.begins = torch.cat([self.begins + (end - self.end), other.begins + (end - other.end)])
        self.start = self.end = end
        self._ragged = bool((self.begins > 0).any())

    def _mask(self, columns: Tensor) -> Tensor | None:
        """(B, 1, T, S) bool, True where a query may attend. None where that is all there is, or all before it."""
        if not self._ragged and (len(columns) == 1 or self.start == 0):
            return None
        every = torch.arange(self.end, device=columns.device)
        own = every[None, None, :] == columns[None, :, None]
        past = (every[None, None, :] <= columns[None, :, None]) & (every[None, None, :] >= self.begins[:, None, None])
        return (past | own)[:, None]

    def _reserve(self, columns: int) -> None:
        have = self.keys[0].shape[2]
        if columns <= have:
            return
        room = max(columns, have * 2, have + _GROW)
        for kept in (self.keys, self.values):
            for i, t in enumerate(kept):
                larger = _zeros((t.shape[0], t.shape[1], room, t.shape[3]), t.dtype, t.device)
                larger[:, :, : self.start] = t[:, :, : self.start]
                kept[i] = larger


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # numpy leaves it to the system to give zeros, a page when it is first written: room nobody uses costs nothing.
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)
