"""Rotary positions (arXiv:2104.09864): queries and keys are turned by angles that grow with their positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llmctl.model.config import ModelConfig, RopeScaling


def rope_table(positions: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (B,T,1,E) float32, of `positions` (B,T).

    Computed afresh rather than kept as a buffer: a model cast to bfloat16 would round a buffer, and a table has an end.
    """
    steps = torch.arange(0, config.head_dim, 2, device=positions.device, dtype=torch.float32) / config.head_dim
    turns = 1.0 / config.rope_theta**steps
    if config.rope_scaling is not None:
        turns = stretched(turns, config.rope_scaling)
    if config.traits.positions == "rope_backwards":
        turns = -turns
    # One opaque operation where it is compiled: inductor would make angles, sines and cosines again at every use, for
    # every unit of every head, forward and backward (a tenth of a step on a CPU).
    return _opaque_table(positions, turns) if torch.compiler.is_compiling() else _table(positions, turns)


def _table(positions: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    angles = positions[..., None].float() * turns
    angles = torch.cat((angles, angles), dim=-1)[:, :, None]
    return angles.cos(), angles.sin()


@torch.library.custom_op("llmctl::rope_table", mutates_args=())
def _opaque_table(positions: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    return _table(positions, turns)


@_opaque_table.register_fake
def _(positions: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    return _table(positions, turns)


def stretched(turns: Tensor, how: RopeScaling) -> Tensor:
    """Llama 3.1's angles a position (E/2,), for contexts `factor` times the one it began with."""
    fits = how.original * turns / (2 * math.pi)  # how often each turns round in the original context
    kept = ((fits - how.low) / (how.high - how.low)).clamp(0, 1)
    return kept * turns + (1 - kept) * turns / how.factor


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (B,T,H,E) by its positions: Hugging Face's layout, in which unit i pairs with unit i + E/2."""
    cos, sin = (r[..., : x.shape[-1] // 2].to(x.dtype) for r in rope)  # both halves have the same angles
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
