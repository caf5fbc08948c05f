"""Loss on data that was not trained on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from llmctl.formats.tokens import TokenReader
from llmctl.train.batch import Batch
from llmctl.train.device import autocast
from llmctl.train.loss import lm_loss

_ROWS = 16


def bits_per_byte(
    model: Any, reader: TokenReader, byte_lengths: np.ndarray, tokens: int, context: int, precision: str = "auto"
) -> float:
    """Bits a byte of text over the first `tokens` tokens of `reader` (0: all), in windows of `context`.

    Unlike the loss a token it compares models with different vocabularies. Special tokens (0 bytes) count neither for
    nor against. NaN where there is no text.
    """
    lengths = torch.from_numpy(np.asarray(byte_lengths, np.float32))
    nats = size = 0.0
    for batch in _windows(reader, tokens, context, lengths):
        nats += _sums(model, [batch], precision)[0]
        size += float(batch.extra["bytes"])
    return nats / (math.log(2) * size) if size else math.nan


def mean_loss(model: Any, batches: Iterable[Batch], precision: str = "auto") -> float:
    """Cross-entropy a trained position, in nats; NaN where there is none."""
    total, count = _sums(model, batches, precision)
    return total / count if count else math.nan


@torch.no_grad()
def _sums(model: Any, batches: Iterable[Batch], precision: str) -> tuple[float, float]:
    """The summed loss and what it is summed over, in evaluation mode."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    total = count = 0.0
    for batch in batches:
        with autocast(precision, device):
            loss = lm_loss(model, batch.to(device))
        total, count = total + float(loss.total), count + float(loss.count)
    model.train(training)
    return total, count


def _windows(reader: TokenReader, tokens: int, context: int, lengths: torch.Tensor) -> Iterator[Batch]:
    """Every token but the first is predicted once; weights are 1 where it has bytes."""
    end = min(tokens or reader.tokens, reader.tokens)
    ids = torch.from_numpy(reader.window(0, end).astype(np.int64))
    whole = (end - 1) // context
    inputs, targets = (ids[i : i + whole * context].view(whole, context) for i in (0, 1))
    pieces = [(inputs[at : at + _ROWS], targets[at : at + _ROWS]) for at in range(0, whole, _ROWS)]
    if whole * context < end - 1:
        rest = ids[whole * context :]
        pieces.append((rest[None, :-1], rest[None, 1:]))
    for x, y in pieces:
        size = lengths[y]
        yield Batch(x, y, (size > 0).float(), extra={"bytes": size.sum()})
