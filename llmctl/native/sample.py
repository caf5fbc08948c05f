"""What `sample.cpp` takes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from llmctl.native.build import library


class Settings(ctypes.Structure):
    """As in `generate.sampling.Sampling`."""

    _fields_ = [
        ("temperature", ctypes.c_double),
        ("top_k", ctypes.c_int64),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
    ]


def available() -> bool:
    """Whether the kernel can be had here."""
    return library("sample") is not None


def sample(logits: Tensor, noise: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Ids (B,) and log-probabilities (B,) float32 for contiguous float32 `logits` (B,V) and float64 `noise` (B,)."""
    found = library("sample")
    assert found is not None and logits.is_contiguous() and noise.is_contiguous()
    rows, vocab = logits.shape
    ids, logprobs = torch.empty(rows, dtype=torch.int64), torch.empty(rows)
    where = [ctypes.c_void_p(t.data_ptr()) for t in (ids, logprobs, logits, noise)]
    found.sample(*where, ctypes.byref(settings), *map(ctypes.c_int64, (rows, vocab, torch.get_num_threads())))
    return ids, logprobs
