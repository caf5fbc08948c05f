"""One token for every row of a batch: the step that is run thousands of times, without what only training needs.

The transformer's own forward pass reads each matrix for itself and in the order in which training keeps it. A step on a
CPU takes queries, keys and values in one product and gate and up in another, and in bfloat16 from weights that stand in
the order in which oneDNN reads them; fp32 has no order that is faster. What has no plain matrices (adapters, fp8), and
any other device, goes through the modules themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.generate import native
from llmctl.generate.cache import KVCache
from llmctl.generate.native import NativeDecoder
from llmctl.model.config import ModelConfig
from llmctl.model.rope import rope_table
from llmctl.model.transformer import Block, GatedMLP, Norm, Transformer

Product = Callable[[Tensor], Tensor]
Rope = tuple[Tensor, Tensor]

_ROWS = 64  # oneDNN picks an order for so many rows; it serves any number


class Decoder:
    """Steps of `model` (a `Transformer` in evaluation mode), whose weights must stay as they are meanwhile."""

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, model.config
        weight = next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self._fast = type(model) is Transformer and self.device.type == "cpu"
        self._layers: list[_Layer] | None = None
        self._head: Product

    @cached_property
    def kernel(self) -> NativeDecoder | None:
        """The whole step in C++, where there is one for this model; made when it is asked for, since it packs."""
        return NativeDecoder(self.model) if native.covers(self.model) else None

    @torch.inference_mode()
    def step(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Append `ids` (B,) to the rows of `cache`. Returns float32 logits (B,V) of what comes next."""
        if self.kernel is not None:
            return self.kernel.step(ids, cache)
        positions = cache.extend(1)
        if not self._fast:
            hidden: Tensor = self.model(ids[:, None], positions=positions, cache=cache)
            return self.model.logits(hidden[:, -1])  # type: ignore[no-any-return]
        if self._layers is None:
            self._prepare()
        assert self._layers is not None
        x, rope = self._enter(ids, positions)
        mask = None if cache.mask is None else _additive(cache.mask, self.dtype)
        for layer in self._layers:
            x = layer(x, rope, mask, cache)
        logits, cap = self._head(self.model.norm(x)).float(), self.config.softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def _prepare(self) -> None:
        """Order the weights: not before the first step, since who only scores takes none."""
        self._layers = [_Layer(block, self.config) for block in self.model.layers]
        head = self.model.head
        self._head = _packed(head, None) if _packs(head) else lambda x: F.linear(x, head)

    def _enter(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, Rope | None]:
        """What goes into the first layer (B,D), and the cosines and signed sines (B,1,E) that it is turned by."""
        x: Tensor = self.model.embed_tokens(ids)
        if self.model.embed_positions is not None:
            return x + self.model.embed_positions(positions[:, 0]), None
        if self.config.traits.embedding_norm:
            x = self.model.norm(x)
        cos, sin = (t[:, 0].to(self.dtype) for t in rope_table(positions, self.config))
        sin[..., : sin.shape[-1] // 2].neg_()
        return x, (cos, sin)


class _Layer:
    """A block, for one token a row: (B,D) to (B,D)."""

    def __init__(self, block: Block, config: ModelConfig) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.block, self.layer, self.grouped = block, attention.layer, attention.grouped
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.qkv = _product(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out = _product(attention.o_proj)
        self.norm = attention.q_norm if isinstance(attention.q_norm, Norm) else None
        self.gains: Tensor | None = None
        if self.norm is not None and self.norm.weight is not None:
            of_heads = (attention.q_norm.weight, self.heads), (attention.k_norm.weight, self.kv_heads)
            self.gains = torch.cat([gain.detach().expand(n, -1) for gain, n in of_heads])
        self.up = _product(mlp.gate_proj, mlp.up_proj) if isinstance(mlp, GatedMLP) else _product(mlp.up_proj)
        self.down = _product(mlp.down_proj)

    def __call__(self, x: Tensor, rope: Rope | None, mask: Tensor | None, cache: KVCache) -> Tensor:
        x = x + self.out(self._attend(self.qkv(self.block.input_layernorm(x)), rope, mask, cache))
        return x + self.down(self._activate(self.up(self.block.post_attention_layernorm(x))))

    def _attend(self, qkv: Tensor, rope: Rope | None, mask: Tensor | None, cache: KVCache) -> Tensor:
        """(B,(H+2K)E) to (B,HE)."""
        every = qkv.view(len(qkv), -1, self.head_dim)
        qk, v = every[:, : -self.kv_heads], every[:, -self.kv_heads :]
        if self.norm is not None:
            qk = F.rms_norm(qk, (self.head_dim,), None, self.norm.eps)
        if self.gains is not None:
            qk = qk * self.gains
        if rope is not None:
            qk = qk * rope[0] + qk.roll(self.head_dim // 2, -1) * rope[1]
        q, k = qk[:, : self.heads], qk[:, self.heads :]
        keys, values = cache.update(self.layer, k[:, :, None], v[:, :, None])
        y = F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask, enable_gqa=self.grouped)
        return y.reshape(len(qkv), -1)

    def _activate(self, up: Tensor) -> Tensor:
        mlp = self.block.mlp
        if isinstance(mlp, GatedMLP):
            gate, up = up.chunk(2, dim=-1)
            return F.silu(gate) * up
        return F.relu(up).square() if mlp.squared else F.gelu(up, approximate="tanh")


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as what is added to scores: once a step, where attention would make it again in every layer."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))


def _product(*layers: nn.Module) -> Product:
    """What `layers` give, side by side."""
    plain = [m for m in layers if type(m) is nn.Linear and _packs(m.weight)]
    if len(plain) == len(layers):
        biases = [m.bias for m in plain if m.bias is not None]
        return _packed(torch.cat([m.weight for m in plain]), torch.cat(biases) if biases else None)
    return layers[0] if len(layers) == 1 else lambda x: torch.cat([m(x) for m in layers], -1)


def _packs(weight: Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _packed(weight: Tensor, bias: Tensor | None) -> Product:
    """(B,in) to (B,out) for a bfloat16 `weight` (out,in). 8,192 by 384: one row takes 0.34 ms, 64 rows 0.64 ms, where
    `F.linear` takes 0.83 and 1.36 (one core with AMX).
    """
    ordered = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: multiply(x, ordered, bias, "none", [], "")
