"""One decoder-only transformer for every family llmctl reads and writes, and the reward model made from it.

Pre-norm blocks of grouped-query attention and an MLP; what a family chooses (norm, positions, MLP, biases) is settled
when the modules are made, so that nothing is asked at run time and a graph compiles as if there were one family.
Parameters carry Hugging Face's names for Llama and Qwen; `names` has those of the others.

Shapes: B rows, T tokens, D width, H heads, K key/value heads, E head_dim, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.model import attention, fast
from llmctl.model.attention import Mask
from llmctl.model.config import ModelConfig
from llmctl.model.rope import rope_table, rotate

Rope = tuple[Tensor, Tensor]


class Cache(Protocol):
    """What the transformer asks of a key/value cache (`generate` has it)."""

    mask: Tensor | None
    """(B, 1, T, S) bool, True where a query may look; None: plain causal attention among the T new tokens, or, for
    T = 1, all S."""

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take in keys and values (B, K, T, E) of one layer; give back all of them, (B, K, S, E)."""
        ...


class Norm(nn.Module):
    """A norm over the last dimension, computed in float32 inside the kernel whatever the input's type.

    Root-mean-square with a learned gain or without one, or, for `layer`, with the mean taken out and a bias added.
    """

    def __init__(self, kind: str, width: int, eps: float) -> None:
        super().__init__()
        self.shape, self.eps, self.centred = (width,), eps, kind == "layer"
        if kind != "rms_unweighted":
            self.weight = nn.Parameter(torch.ones(width))
        else:
            self.register_parameter("weight", None)
        self.bias = nn.Parameter(torch.zeros(width)) if self.centred else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same."""
        weight = None if self.weight is None else self.weight.to(x.dtype)
        if self.bias is not None:
            return F.layer_norm(x, self.shape, weight, self.bias.to(x.dtype), self.eps)
        return F.rms_norm(x, self.shape, weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention, with rotary positions unless the positions are learned."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim, self.grouped = layer, config.head_dim, config.kv_heads != config.heads
        qkv_bias, output_bias, _ = config.biases
        self.q_proj = nn.Linear(config.width, config.heads * config.head_dim, bias=qkv_bias)
        self.k_proj = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(config.heads * config.head_dim, config.width, bias=output_bias)
        # Where the norm has no weights it may as well stand behind the rotation, as in nanochat: turning a vector
        # changes no length.
        self.q_norm, self.k_norm = _qk_norm(config), _qk_norm(config)

    def forward(self, x: Tensor, rope: Rope | None, mask: Mask, cache: Cache | None) -> Tensor:
        """X (B,T,D) to (B,T,D); `mask` (B,1,T,S) bool, or a rule, or None for causal."""
        b, t, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(b, t, -1, self.head_dim))
        k = self.k_norm(self.k_proj(x).view(b, t, -1, self.head_dim))
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        v = self.v_proj(x).view(b, t, -1, self.head_dim).transpose(1, 2)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        y = attention.attend(q, k, v, mask)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


def _qk_norm(config: ModelConfig) -> nn.Module:
    if config.traits.qk_norm == "none":
        return nn.Identity()
    kind = "rms" if config.traits.qk_norm == "weighted" else "rms_unweighted"
    return Norm(kind, config.head_dim, config.norm_eps)


class GatedMLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias = config.biases[2]
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=bias)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=bias)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B,T,D) to (B,T,D)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class PlainMLP(nn.Module):
    """Two matrices: down(act(up(x))), where act is GELU or the square of ReLU (arXiv:2109.08668)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias = config.biases[2]
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=bias)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=bias)
        self.squared = config.traits.mlp == "relu2"

    def forward(self, x: Tensor) -> Tensor:
        """(B,T,D) to (B,T,D)."""
        x = self.up_proj(x)
        return self.down_proj(F.relu(x).square() if self.squared else F.gelu(x, approximate="tanh"))


class Block(nn.Module):
    """One layer: attention and MLP, each behind its norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = Norm(config.traits.norm, config.width, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = Norm(config.traits.norm, config.width, config.norm_eps)
        self.mlp = GatedMLP(config) if config.traits.mlp == "swiglu" else PlainMLP(config)

    def forward(self, x: Tensor, rope: Rope | None, mask: Mask, cache: Cache | None) -> Tensor:
        """(B,T,D) to (B,T,D)."""
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Transformer(nn.Module):
    """Token ids in, hidden states out; `logits` turns those into predictions, where they are wanted."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        learned = config.traits.positions == "learned"
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.embed_positions = nn.Embedding(config.context, config.width) if learned else None
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = Norm(config.traits.norm, config.width, config.norm_eps)
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
                p.fill_(0.0 if name.endswith("bias") else 1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                p.zero_()
            else:
                p.normal_(0.0, width**-0.5)
        # 0.02 learned fastest, tied or not, of 0.005, 0.02, 0.1 and 0.8 (width 128, 150 steps: loss 5.13 against 5.37
        # and more). Where the table is the head too, identity blocks give a token's own logit std * width: 5 at most.
        self.embed_tokens.weight.normal_(0.0, min(0.02, 5.0 / width))
        if self.embed_positions is not None:
            self.embed_positions.weight.normal_(0.0, 0.01)  # GPT-2's own
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
        (B,T) int: attention stays within runs of equal segments, besides being causal.
        """
        if cache is not None:
            assert positions is not None and segments is None, "a cache needs positions and knows no segments"
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        mask = self._mask(segments, cache)
        if cache is None and fast.suits(self):
            return fast.forward(self, ids, positions, mask)
        x, rope = self.embed_tokens(ids), None
        if self.embed_positions is not None:
            x = x + self.embed_positions(positions)
        else:
            rope = rope_table(positions, self.config)
        if self.config.traits.embedding_norm:
            x = self.norm(x)  # without weights, so that one serves at both ends
        for block in self.layers:
            x = block(x, rope, mask, cache)
        return self.norm(x)

    def _mask(self, segments: Tensor | None, cache: Cache | None) -> Mask:
        if cache is not None:
            return cache.mask
        if segments is None:
            return None
        device, dtype = segments.device.type, self.embed_tokens.weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        return attention.document_mask(segments, dtype, self.config.head_dim)

    @property
    def softcap(self) -> float:
        """What logits are bounded by; 0 for nothing."""
        return self.config.softcap

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden (...,D) to float32 logits (...,V), computed in the weights' (or the autocast) type."""
        logits, cap = F.linear(hidden, self.head).float(), self.config.softcap
        return cap * torch.tanh(logits / cap) if cap else logits


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
