"""A transformer's weights in the order of the kernel (native/decode.cpp), and its steps."""

from __future__ import annotations

import weakref
from collections import deque
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.generate.cache import KVCache
from llmctl.model.config import ModelConfig
from llmctl.model.rope import rope_table
from llmctl.model.transformer import Attention, Block, GatedMLP, Norm, PlainMLP, Transformer
from llmctl.native import decode, pages

# Tokens that go through the layers together: so many rows stay in a core's cache.
TOGETHER = 512
_KNOWN = {
    Transformer, Block, Attention, GatedMLP, PlainMLP, Norm, nn.Linear, nn.Embedding, nn.Identity, nn.ModuleList
}  # fmt: skip


def covers(model: Any) -> bool:
    """Whether the kernel computes what `model` does: plain matrices (no adapters, no fp8), on a CPU that it is for."""
    if type(model) is not Transformer or model.config.head_dim > decode.LARGEST_HEAD:
        return False
    kinds = {(p.device.type, p.dtype, p.is_contiguous()) for p in model.parameters()}
    known = all(type(m) in _KNOWN for m in model.modules())
    return known and kinds in [{("cpu", dtype, True)} for dtype in decode.TYPES] and decode.available()


# What decoders that are gone have left, for the next: of the model that generates again and again while it trains.
_spare: deque[Tensor] = deque(maxlen=1)


class NativeDecoder:
    """Steps of `model`, which the kernel `covers`; its weights are taken when this is made."""

    def __init__(self, model: Transformer) -> None:
        self.config: ModelConfig = model.config
        self.dtype = model.embed_tokens.weight.dtype
        self._kept: list[Any] = []
        """What the kernel has pointers to."""
        config, traits = self.config, self.config.traits
        blocks: list[Block] = list(model.layers)  # type: ignore[arg-type]
        matrices = [_matrices(block) for block in blocks]
        shapes = [(len(w), w.shape[1]) for layer in matrices for w in layer.values()] + [
            (len(model.head), config.width)
        ]
        self._room = _room(sum(decode.packed_size(*shape, self.dtype) for shape in shapes), self.dtype)
        weakref.finalize(self, _spare.append, self._room)
        self._used = 0
        layers = (decode.Layer * config.layers)()
        for layer, block, weights in zip(layers, blocks, matrices, strict=True):
            for name, weight in weights.items():
                setattr(layer, name, self._packed(weight))
            for name, vector in _vectors(block).items():
                setattr(layer, name, self._vector(vector))
        self._model = decode.Model(
            type=decode.TYPES[self.dtype], layers=config.layers, width=config.width, heads=config.heads,
            kv_heads=config.kv_heads, head_dim=config.head_dim, mlp=config.mlp_width, vocab=config.vocab_size,
            activation=decode.ACTIVATIONS[traits.mlp], centred=model.norm.centred, qk_norm=traits.qk_norm != "none",
            embedding_norm=traits.embedding_norm, eps=config.norm_eps, softcap=config.softcap, layer=layers,
            embed=self._keep(model.embed_tokens.weight), head=self._packed(model.head),
            positions=self._keep(model.embed_positions.weight) if model.embed_positions is not None else None,
            norm=self._vector(model.norm.weight), norm_bias=self._vector(model.norm.bias),
        )  # fmt: skip
        self._turns = torch.empty(0, config.head_dim)

    def step(self, ids: Tensor, cache: KVCache) -> Tensor:
        """Append `ids` (B,) to the rows of `cache`. Returns float32 logits (B,V) of what comes next."""
        cache.advance(1)
        return self.run(ids, None, torch.full((len(ids),), cache.start), cache, None)

    def run(self, ids: Tensor, rows: Tensor | None, at: Tensor, cache: KVCache, which: Tensor | None) -> Tensor:
        """Take tokens `ids` (N,) of the `rows` (N,) and columns `at` (N,) of `cache` through all layers, those of a row
        in their order. `rows` None: each has its own. Returns float32 logits (M,V) of the tokens number `which` (M,),
        None: of all.
        """
        wanted = len(ids) if which is None else len(which)
        logits = torch.empty(wanted, self.config.vocab_size)
        keys, values = decode.pointers(cache.keys), decode.pointers(cache.values)
        rope = None if self._model.positions else self._rope(cache.end).data_ptr()
        for first in range(0, len(ids), TOGETHER):
            part = slice(first, first + TOGETHER)
            some, begin = None, first
            count = len(ids[part])
            if which is not None:
                inside = (which >= first) & (which < first + TOGETHER)
                some, begin = which[inside] - first, int((which < first).sum())
            decode.step(self._model, decode.Tokens(
                count=count, room=cache.keys[0].shape[2], several=rows is not None,
                ids=ids[part].data_ptr(), at=at[part].data_ptr(),
                rows=None if rows is None else rows[part].data_ptr(), begins=cache.begins.data_ptr(),
                keys=keys, values=values, rope=rope, wanted=count if some is None else len(some),
                which=None if some is None else some.data_ptr(), logits=logits[begin:].data_ptr(),
            ))  # fmt: skip
        return logits

    def _packed(self, weight: Tensor) -> int:
        size = decode.packed_size(len(weight), weight.shape[1], self.dtype)
        room = self._room[self._used : self._used + size]
        self._used += size
        decode.pack(room, weight.detach())
        return room.data_ptr()

    def _vector(self, vector: Tensor | None) -> int | None:
        return None if vector is None else self._keep(vector.detach().float())

    def _keep(self, tensor: Tensor) -> int:
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _rope(self, positions: int) -> Tensor:
        """Cosines, then sines, of half the units each, for at least so many positions: (positions, head_dim)."""
        if positions > len(self._turns):
            half = self.config.head_dim // 2
            every = torch.arange(max(positions, 2 * len(self._turns), 256))
            self._turns = torch.cat([t[0, :, 0, :half] for t in rope_table(every[None], self.config)], -1)
        return self._turns


def _room(size: int, dtype: torch.dtype) -> Tensor:
    """Memory for packed weights: what the last ones left, as fresh pages cost more than the packing."""
    with suppress(IndexError):  # another thread may have been quicker
        while _spare:
            room = _spare.pop()
            if room.dtype == dtype and len(room) == size:
                return room
    return pages.empty((size,), dtype)


def _matrices(block: Block) -> dict[str, Tensor]:
    attention, mlp = block.self_attn, block.mlp
    qkv = torch.cat([p.weight.detach() for p in (attention.q_proj, attention.k_proj, attention.v_proj)])
    found = {"qkv": qkv, "out": attention.o_proj.weight, "up": mlp.up_proj.weight, "down": mlp.down_proj.weight}
    return {**found, "gate": mlp.gate_proj.weight} if isinstance(mlp, GatedMLP) else found


def _vectors(block: Block) -> dict[str, Tensor | None]:
    attention, mlp, norm1, norm2 = block.self_attn, block.mlp, block.input_layernorm, block.post_attention_layernorm
    biases = [p.bias for p in (attention.q_proj, attention.k_proj, attention.v_proj) if p.bias is not None]
    return {
        "qkv_bias": torch.cat([b.detach() for b in biases]) if biases else None,
        "out_bias": attention.o_proj.bias, "up_bias": mlp.up_proj.bias, "down_bias": mlp.down_proj.bias,
        "gate_bias": mlp.gate_proj.bias if isinstance(mlp, GatedMLP) else None,
        "norm1": norm1.weight, "norm1_bias": norm1.bias, "norm2": norm2.weight, "norm2_bias": norm2.bias,
        "q_gain": getattr(attention.q_norm, "weight", None), "k_gain": getattr(attention.k_norm, "weight", None),
    }  # fmt: skip
