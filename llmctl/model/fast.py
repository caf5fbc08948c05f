"""A transformer's forward pass through the kernels of `native.layers`: what training on a CPU in bfloat16 takes.

The same mathematics as `transformer`, from the same modules' weights. Nothing is compiled for each shape of a batch,
and a step is faster than a compiled one: 0.46 s for 0.70 (13.8 M parameters, 16 rows of 256, two cores). What the
kernels do not cover (biases, layer norms, learned positions, adapters, fp8, sharded blocks, other devices) goes the
usual way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llmctl.model import attention
from llmctl.model.attention import Mask
from llmctl.model.config import ModelConfig
from llmctl.model.rope import rope_table
from llmctl.native import layers
from llmctl.native.build import library


def suits(model: Any) -> bool:
    """Whether `forward` serves for `model` as things are: on a CPU, under autocast to bfloat16, not being traced."""
    return (
        not torch.compiler.is_compiling()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and covers(model)
    )


def covers(model: Any) -> bool:
    """Whether there are kernels for all of `model`'s layers, and this machine has them."""
    first = next(model.parameters())
    return (
        first.device.type == "cpu"
        and first.dtype == torch.float32
        and _plain_shape(model.config)
        and all(_plain(block) for block in model.layers)
        and all(library(name) is not None for name in ("layers", "gradient"))
    )


def _plain_shape(config: ModelConfig) -> bool:
    traits = config.traits
    return (
        traits.norm != "layer"
        and traits.positions != "learned"
        and traits.mlp in ("swiglu", "relu2")
        and not any(config.biases)
        and config.head_dim % 32 == 0
        and config.head_dim <= 256
    )


def _plain(block: nn.Module) -> bool:
    """Whether a block's matrices are what they were made as: adapters and fp8 take their place, FSDP the block's."""
    matrices = [m for name, m in block.named_modules() if name.endswith("_proj")]
    return type(block).__name__ == "Block" and all(type(m) is nn.Linear for m in matrices)


def forward(model: Any, ids: Tensor, positions: Tensor, mask: Mask) -> Tensor:
    """Hidden states (B,T,D), bfloat16, after the last norm, of ids (B,T) at `positions` (B,T) or (1,T); `mask` as
    `attention.attend` has it.
    """
    config, (b, t) = model.config, ids.shape
    embedded = model.embed_tokens(ids)
    if config.traits.embedding_norm:
        embedded = model.norm(embedded).float()
    x, y = embedded.view(b * t, -1), None
    half = config.head_dim // 2  # both halves of a head have the same angles
    cos, sin = (r[..., :half].reshape(-1, half).contiguous() for r in rope_table(positions, config))
    for block in model.layers:
        x, normed = layers.add_norm(x, y, block.input_layernorm.weight, config.norm_eps)
        heads = _heads(block.self_attn, normed, cos, sin, config)
        q, k, v = (h.view(b, t, -1, config.head_dim).transpose(1, 2) for h in heads)
        seen = attention.attend(q, k, v, mask)
        y = layers.linear(seen.transpose(1, 2).reshape(b * t, -1), block.self_attn.o_proj.weight)
        x, normed = layers.add_norm(x, y, block.post_attention_layernorm.weight, config.norm_eps)
        gate = getattr(block.mlp, "gate_proj", None)
        y = layers.mlp(normed, gate and gate.weight, block.mlp.up_proj.weight, block.mlp.down_proj.weight)
    return layers.add_norm(x, y, model.norm.weight, config.norm_eps)[1].view(b, t, -1)


def _heads(part: Any, x: Tensor, cos: Tensor, sin: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor, Tensor]:
    eps = -1.0 if config.traits.qk_norm == "none" else config.norm_eps
    gains = (getattr(part.q_norm, "weight", None), getattr(part.k_norm, "weight", None))
    return layers.project(x, (part.q_proj.weight, part.k_proj.weight, part.v_proj.weight), gains, eps, cos, sin)
