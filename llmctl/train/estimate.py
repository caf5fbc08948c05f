"""How long a run will take and what memory it needs, before it is begun."""

from __future__ import annotations

import time
from typing import Any

import torch

from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer
from llmctl.train import distributed
from llmctl.train.batch import Batch
from llmctl.train.device import autocast, best_device, compute_dtype
from llmctl.train.loss import lm_loss
from llmctl.train.optimizer import Optimizer
from llmctl.train.peak import matmul_rate
from llmctl.train.settings import TrainSettings

_SHORT = 2e11  # FLOPs of one measured step: well under a second on a slow CPU, long enough to be typical
_STEPS, _PATIENCE = 10, 10.0  # so many are measured, but no longer than so many seconds
_TOKENS = 2048  # and no more than this many tokens, for models so small that overheads rule
_LARGE = 400_000_000  # parameters from which on the model is not built just to be measured
# What training makes of the rate of plain matrix products, where it is only guessed: nanochat's MFU is 0.41 to 0.46.
_UTILISATION = 0.4


def seconds_a_token(shape: ModelConfig, context: int, settings: TrainSettings) -> tuple[float, str]:
    """(seconds, how it was found out): ten real steps of a model of this shape, or the rate of matrix products."""
    device, flops = best_device(), shape.flops_per_token(context)
    if shape.parameters() > _LARGE:
        return flops / (_UTILISATION * matmul_rate(settings.precision)), "from the rate of matrix products"
    model = Transformer(shape).to(device)
    optimizer = Optimizer(model, settings.optimizer, compute_dtype(settings.precision, device))
    rows = max(1, min(_TOKENS // context, int(_SHORT / (flops * context))))
    ids = torch.randint(shape.vocab_size, (rows, context), device=device)
    batch = Batch(ids, ids, torch.ones(rows, context, device=device))
    best, since = float("inf"), time.perf_counter()
    taken = 0
    while taken < 3 or (taken < _STEPS and time.perf_counter() - since < _PATIENCE):  # the first warms up
        taken += 1
        begun = time.perf_counter()
        with autocast(settings.precision, device):
            loss = lm_loss(model, batch)
        loss.total.backward()
        optimizer.step(1.0)
        float(loss.total.detach())
        best = min(best, time.perf_counter() - begun)
    return best / (rows * context), f"the best of {taken} measured steps, not compiled"


def memory(shape: ModelConfig, rows: int, context: int, settings: TrainSettings, parts: int = 1) -> int:
    """Bytes, about: weights, gradients, optimizer state, and the activations of `rows` rows in one pass.

    With `parts` above 1 it is one process's memory under FSDP2: so large a part of the first three, and what is whole
    for a while: during a step the embedding and the head with their gradients, and two blocks (the next one is
    fetched while one computes); between steps, for samples and checkpoints, all the weights once.
    """
    moments = 2 * shape.parameters() - (shape.matrix_parameters() if settings.optimizer.name == "muon" else 0)
    # What backward needs of a layer and token: some ten vectors of the width and four of the MLP's, in 2 or 4 bytes.
    size = compute_dtype(settings.precision, best_device()).itemsize
    activations = rows * context * shape.layers * (10 * shape.width + 4 * shape.mlp_width) * size
    kept = 4 * (2 * shape.parameters() + moments)
    if parts == 1:
        return kept + activations
    blocks = shape.matrix_parameters()
    fetched = 8 * (shape.parameters() - blocks) + 2 * (size + 4) * blocks // shape.layers
    return kept // parts + max(fetched + activations, 4 * shape.parameters())


def rows(
    shape: ModelConfig,
    tokens: int,
    rows_at_once: int,
    context: int,
    settings: TrainSettings,
    price: float = 0.0,
    sharded: bool = False,
) -> list[Any]:
    """The lines of a plan that every training stage has: (what, how much); its cost where an hour has a `price`.

    Under `torchrun` memory is that of a process, which under FSDP2 (`sharded`) has a part of the weights, and time
    that of one of them measured alone, divided by how many there are: what their traffic costs is not in it.
    """
    processes = distributed.size()
    seconds, how = seconds_a_token(shape, context, settings)
    whole = tokens * seconds / processes
    flops = shape.flops_per_token(context) * tokens
    kind = str(compute_dtype(settings.precision, best_device())).removeprefix("torch.")
    mine, parts = -(-rows_at_once // processes), processes if sharded else 1
    each = f" in each of {processes} processes" if processes > 1 else ""
    times = f"{processes} x " if processes > 1 else ""
    return [
        ("tokens", f"{tokens:,}"),
        ("FLOPs", f"{flops:.2e}"),
        ("memory", f"about {memory(shape, mine, context, settings, parts) / 1e6:,.0f} MB{each}"),
        ("precision", f"{kind} on {best_device()}"),
        ("speed", f"{times}{1 / seconds:,.0f} tokens/s ({how})"),
        ("time", f"about {_minutes(whole)}"),
        *([("cost", f"about {whole / 3600 * price:,.2f} at {price:g} an hour")] if price else []),
    ]


def _minutes(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
