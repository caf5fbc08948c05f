"""Prompts into a cache. What all of them begin with (few-shot examples, a system prompt) is run once and copied."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from llmctl.generate.cache import KVCache
from llmctl.generate.native import NativeDecoder
from llmctl.generate.scoring import common_length

# Tokens of a prefill pass: enough to fill the matrix units, few enough that the MLP's activations stay in tens of MB.
_PASS = 8192
# Tokens that prompts must share. The chat format's few header tokens are not worth a pass, and as each prompt's own
# pass rounds differently, answers would change for nothing.
_SHARED = 64


# Up to so many columns the kernel is faster than the modules, whose attention is in blocks.
_SHORT = 512


def prefill(model: Any, prompts: list[list[int]], kernel: NativeDecoder | None = None) -> tuple[KVCache, Tensor]:
    """A cache with a row for each of `prompts` (ids, at least one each), and the logits (B,V) of what comes next.

    `kernel`: of the same weights; it runs short prompts.
    """
    config, weight, width = model.config, next(model.parameters()), max(map(len, prompts))

    def cache(begins: Tensor, columns: int) -> KVCache:
        return KVCache(config.layers, config.kv_heads, config.head_dim, begins, weight.dtype, columns)

    kernel = kernel if width <= _SHORT else None
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        row[width - len(prompt) :] = torch.tensor(prompt)
    ids = ids.to(weight.device)
    whole = cache(torch.tensor([width - len(p) for p in prompts], device=weight.device), width)
    # Every prompt has a last token of its own, whose logits are wanted.
    shared = min(common_length(prompts), *(len(p) - 1 for p in prompts)) if len(prompts) > 1 else 0
    if shared >= _SHARED:
        front = cache(torch.zeros(1, dtype=torch.int64, device=weight.device), shared)
        if kernel is not None:
            _run_natively(kernel, torch.tensor([prompts[0][:shared]]), front)
        else:
            _run(model, torch.tensor([prompts[0][:shared]], device=weight.device), front)
        # In columns: rows are aligned on the right, so a shorter prompt runs some of what is shared once more.
        whole.begin_with(front, shared)
        ids = ids[:, shared:]
    if kernel is not None:
        return whole, _run_natively(kernel, ids, whole)
    return whole, model.logits(_run(model, ids, whole)[:, -1])


def _run(model: Any, ids: Tensor, cache: KVCache) -> Tensor:
    """The hidden states of the last pass over `ids` (B,T)."""
    for part in ids.split(max(1, _PASS // len(ids)), dim=1):
        hidden: Tensor = model(part, positions=cache.extend(part.shape[1]), cache=cache)
    return hidden


def _run_natively(kernel: NativeDecoder, ids: Tensor, cache: KVCache) -> Tensor:
    """The logits after the last of `ids` (B,T), the next columns of `cache`. Its padding is left out."""
    cache.advance(ids.shape[1])
    columns = torch.arange(cache.start, cache.end)
    real = columns >= cache.begins[:, None]
    rows, places = real.nonzero(as_tuple=True)
    return kernel.run(ids[real], rows, columns[places], cache, real.sum(1).cumsum(0) - 1)
