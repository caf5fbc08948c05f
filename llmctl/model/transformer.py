"""One decoder-only transformer for every family llmctl reads and writes, and the reward model made from it.

Pre-norm RMSNorm, rotary positions, grouped-query attention, SwiGLU; queries and keys normalised where the family says
so. Parameters carry Hugging Face's names, so that reading and writing a model folder renames nothing but a prefix.

Shapes: B rows, T tokens, D width, H heads, K key/value heads, E head_dim, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.model.config import ModelConfig


class Cache(Protocol):
    """What the transformer asks of a key/value cache (`generate` has it)."""

    mask: Tensor | None
    """(B, 1, T, S) bool, True where a query may look; None: plain causal attention among the T new tokens, or, for
    T = 1, all S."""

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take in keys and values (B, K, T, E) of one layer; give back all of them, (B, K, S, E)."""
        ...


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned gain, computed in float32 inside the kernel whatever the input's type."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim, self.grouped = layer, config.head_dim, config.kv_heads != config.heads
        self.q_proj = nn.Linear(config.width, config.heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_dim, config.width, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None) -> Tensor:
        """X (B,T,D) to (B,T,D); `mask` (B,1,T,S) bool or None for causal."""
        b, t, _ = x.shape
        q = rotate(self.q_norm(self.q_proj(x).view(b, t, -1, self.head_dim)), rope).transpose(1, 2)
        k = rotate(self.k_norm(self.k_proj(x).view(b, t, -1, self.head_dim)), rope).transpose(1, 2)
        v = self.v_proj(x).view(b, t, -1, self.head_dim).transpose(1, 2)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        causal = mask is None and t > 1
        assert not causal or k.shape[2] == t, "several new tokens behind a filled cache need a mask"
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=self.grouped)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,T,D) to (B,T,D)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One layer: attention and MLP, each behind its norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None) -> Tensor:
        """(B,T,D) to (B,T,D)."""
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Transformer(nn.Module):
    """Token ids in, hidden states out; `logits` turns those into predictions, where they are wanted."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.lm_head = None if config.tie_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)
        if not self.embed_tokens.weight.is_meta:
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fresh weights from torch's global generator.

        Matrices are normal with standard deviation 1/sqrt(width), which keeps unit variance through them; those that
        write into the residual stream begin at zero, so that every block begins as the identity (nanochat, and
        arXiv:2003.04887). The head begins near zero: the first loss is ln(V), and no early steps go into unlearning.
        """
        width = self.config.width
        for name, p in self.named_parameters():
            if p.dim() < 2:
                p.fill_(1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                p.zero_()
            else:
                p.normal_(0.0, width**-0.5)
        # 0.02 learned fastest, tied or not, of 0.005, 0.02, 0.1 and 0.8 (width 128, 150 steps: loss 5.13 against 5.37
        # and more). Where the table is the head too, identity blocks give a token's own logit std * width: 5 at most.
        self.embed_tokens.weight.normal_(0.0, min(0.02, 5.0 / width))
        if self.lm_head is not None:
            self.lm_head.weight.normal_(0.0, 0.001)

    @property
    def head(self) -> Tensor:
        """The (V,D) matrix that turns hidden states into logits."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Hidden states (B,T,D) after the last norm.

        `ids` (B,T) int64. `positions` (B,T), by default 0..T-1 in each row; must be given with a cache. `segments`
        (B,T) int: attention stays within equal segments, besides being causal.
        """
        if cache is not None:
            assert positions is not None and segments is None, "a cache needs positions and knows no segments"
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        mask = cache.mask if cache is not None else None if segments is None else segment_mask(segments)
        rope = rope_table(positions, self.config)
        x = self.embed_tokens(ids)
        for block in self.layers:
            x = block(x, rope, mask, cache)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden (...,D) to float32 logits (...,V), computed in the weights' (or the autocast) type."""
        return F.linear(hidden, self.head).float()


class RewardModel(nn.Module):
    """A transformer with one number at the end: how good a conversation is (arXiv:2203.02155)."""

    def __init__(self, backbone: Transformer) -> None:
        super().__init__()
        self.backbone = backbone
        self.score = nn.Linear(backbone.config.width, 1, bias=False)
        if not self.score.weight.is_meta:
            # InstructGPT's start: scores of about unit size, no preference yet.
            nn.init.normal_(self.score.weight, std=(backbone.config.width + 1) ** -0.5)

    @property
    def config(self) -> ModelConfig:
        """The shape of the backbone."""
        return self.backbone.config

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Float32 scores (B,) at the last real token. `ids` (B,T) padded on the right with anything, `lengths` (B,)."""
        hidden = self.backbone(ids)  # causal, so padding behind the last token cannot reach it
        last = hidden[torch.arange(len(ids), device=ids.device), lengths - 1].float()
        with torch.autocast(last.device.type, enabled=False):  # bfloat16 keeps 8 bits of a score: many would be equal
            return F.linear(last, self.score.weight.float()).squeeze(-1)


def rope_table(positions: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (B,T,1,E) float32, of `positions` (B,T).

    Computed afresh rather than kept as a buffer: a model cast to bfloat16 would round a buffer, and a table has an end.
    """
    steps = torch.arange(0, config.head_dim, 2, device=positions.device, dtype=torch.float32) / config.head_dim
    angles = positions[..., None].float() * (1.0 / config.rope_theta**steps)
    angles = torch.cat((angles, angles), dim=-1)[:, :, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn (B,T,H,E) by its positions: Hugging Face's layout, in which unit i pairs with unit i + E/2."""
    cos, sin = (r.to(x.dtype) for r in rope)
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def segment_mask(segments: Tensor) -> Tensor:
    """(B,1,T,T) bool from `segments` (B,T): causal and within one segment; every position sees at least itself."""
    t = segments.shape[1]
    causal = torch.ones(t, t, dtype=torch.bool, device=segments.device).tril()
    return (segments[:, None, :, None] == segments[:, None, None, :]) & causal
