"""Windows of a token stream, in random order and without replacement: a pure function of the step."""

from __future__ import annotations

import numpy as np
import torch

from llmctl.errors import UserError
from llmctl.formats.tokens import TokenReader
from llmctl.train.batch import Batch
from llmctl.train.order import Shuffle


class Windows:
    """`rows` windows of `context` tokens an update, at most `at_once` of them in one pass.

    An epoch goes once through the stream, cut into windows behind a random offset, in a random order: no place is seen
    twice in it, and the cuts are elsewhere in the next.
    """

    fixed_shape = True

    def __init__(
        self, reader: TokenReader, context: int, rows: int, at_once: int, seed: int, mask_documents: bool = False
    ) -> None:
        if reader.tokens <= context:
            raise UserError(
                f"there are {reader.tokens:,} tokens to train on, and one row of `context` {context:,} needs more",
                str(reader.folder),
                "take more text, or a smaller context",
            )
        self.reader, self.context, self.rows, self.at_once, self.seed = reader, context, rows, at_once, seed
        self.mask_documents = mask_documents
        # Room for an offset of up to a window; a stream shorter than two has room for less.
        self.slack = min(context, reader.tokens - 1 - context)
        self.order = Shuffle((reader.tokens - 1 - self.slack) // context, seed)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of update `step`."""
        starts = [self._start(epoch, item) for epoch, item in self.order.take(step * self.rows, self.rows)]
        return [self._batch(starts[at : at + self.at_once]) for at in range(0, len(starts), self.at_once)]

    def _start(self, epoch: int, item: int) -> int:
        offset = int(np.random.default_rng((self.seed, epoch, 1)).integers(self.slack + 1))
        return offset + item * self.context

    def _batch(self, starts: list[int]) -> Batch:
        read = np.stack([self.reader.window(s, self.context + 1) for s in starts]).astype(np.int64)
        ids = torch.from_numpy(read)
        positions = segments = None
        if self.mask_documents:
            documents = np.stack([self.reader.segments(s, self.context) for s in starts])
            segments, positions = torch.from_numpy(documents), torch.from_numpy(restarted(documents))
        weights = torch.ones(len(starts), self.context)
        return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights, positions, segments)


def restarted(segments: np.ndarray) -> np.ndarray:
    """(B, T) positions that count from 0 in each run of equal `segments` (B, T)."""
    count = np.broadcast_to(np.arange(segments.shape[1]), segments.shape)
    begins = np.diff(segments, axis=1, prepend=segments[:, :1] - 1) != 0
    return count - np.maximum.accumulate(np.where(begins, count, 0), axis=1)
