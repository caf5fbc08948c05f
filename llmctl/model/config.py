"""The shape of a transformer, what it weighs and costs, and the one dial that sets it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llmctl.model import hf_config
from llmctl.model.families import FAMILIES, Family, FamilyName


@dataclass(frozen=True)
class RopeScaling:
    """How Llama 3.1 stretches its rotary positions: slow turns are slowed `factor` times, fast ones left alone.

    A turn is slow where less than `low` of it fits into the `original` context, fast from `high` on; between, it is
    blended.
    """

    factor: float
    low: float
    high: float
    original: int


@dataclass(frozen=True)
class ModelConfig:
    """The shape. Widths are in units (not bytes), `context` in tokens: the longest sequence it is meant for."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    context: int
    family: FamilyName = "qwen3"
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    attention_bias: bool = False
    """Biases in all four matrices of attention, in a family that has them in some of its models only."""
    mlp_bias: bool = False
    """The same for the MLP."""
    softcap: float = 0.0
    """Logits are squeezed into plus or minus this by a tanh; 0 leaves them."""
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "layers", "width", "heads", "kv_heads", "head_dim", "mlp_width", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it should be 1 or more")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) should be a multiple of kv_heads ({self.kv_heads})")
        if self.head_dim % 2 and self.traits.positions != "learned":
            raise ValueError(f"head_dim is {self.head_dim}; it should be even (RoPE turns pairs)")
        for name in ("attention_bias", "mlp_bias", "softcap", "rope_scaling"):
            if getattr(self, name) and name not in self.traits.options:
                raise ValueError(f"{name} is {getattr(self, name)}; models of the family {self.family} have none")
        if self.family == "gpt2" and not self.heads * self.head_dim == self.kv_heads * self.head_dim == self.width:
            raise ValueError(
                f"{self.heads} heads of {self.head_dim} with {self.kv_heads} kv_heads; in the family gpt2 both should "
                f"fill the width of {self.width}"
            )

    @property
    def traits(self) -> Family:
        """What its family fixes."""
        return FAMILIES[self.family]

    @property
    def biases(self) -> tuple[bool, bool, bool]:
        """Whether there are biases on queries, keys and values; on attention's output; in the MLP."""
        t = self.traits
        return (
            t.qkv_bias or self.attention_bias,
            t.output_bias or self.attention_bias,
            t.mlp_bias or self.mlp_bias,
        )

    def matrix_parameters(self) -> int:
        """Weights of the matrices inside the blocks: what Muon trains."""
        attention = 2 * self.head_dim * (self.heads + self.kv_heads)
        mlp = (3 if self.traits.mlp == "swiglu" else 2) * self.mlp_width
        return self.layers * self.width * (attention + mlp)

    def parameters(self, embeddings: bool = True) -> int:
        """How many weights; without `embeddings`, only those of the blocks (what Muon trains, norms and biases)."""
        norm = {"rms": 1, "rms_unweighted": 0, "layer": 2}[self.traits.norm] * self.width
        qkv, output, mlp = self.biases
        vectors = 2 * norm + (2 * self.head_dim if self.traits.qk_norm == "weighted" else 0)
        vectors += qkv * self.head_dim * (self.heads + 2 * self.kv_heads) + output * self.width
        vectors += mlp * (self.mlp_width * (2 if self.traits.mlp == "swiglu" else 1) + self.width)
        blocks = self.matrix_parameters() + self.layers * vectors + norm
        tables = self.vocab_size * self.width * (1 if self.tie_embeddings else 2)
        tables += self.context * self.width if self.traits.positions == "learned" else 0
        return blocks + (tables if embeddings else 0)

    def flops_per_token(self, context: int | None = None) -> int:
        """Floating-point operations to train on one token, forward and backward, at `context` tokens a sequence.

        6 a weight in a matrix product (the embedding look-up is none, the head is one), and 12 * heads * head_dim *
        context a layer for attention: PaLM's count (arXiv:2204.02311, appendix B). It includes the half of the scores
        that the causal mask hides, so that MFU compares with what others print.
        """
        products = self.parameters(embeddings=False) + self.vocab_size * self.width
        scores = self.layers * self.heads * self.head_dim * (context or self.context)
        return 6 * products + 12 * scores

    def to_hf(self, reward: bool = False) -> dict[str, Any]:
        """The `config.json` that transformers reads, without the token ids; `reward` for a model with a scalar head."""
        return hf_config.write(self, reward)

    @classmethod
    def from_hf(cls, found: dict[str, Any], where: str = "config.json") -> ModelConfig:
        """The shape that a `config.json` describes. UserError for what this transformer does not compute."""
        with hf_config.errors(where):
            fields = hf_config.read(found, where)
            scaling = fields.pop("rope_scaling")
            return cls(**fields, rope_scaling=RopeScaling(**scaling) if scaling else None)


def dial(
    depth: int,
    vocab_size: int,
    context: int,
    *,
    width: int = 0,
    head_dim: int = 0,
    kv_heads: int = 0,
    mlp_width: int = 0,
    tie_embeddings: bool | None = None,
    family: FamilyName = "qwen3",
) -> ModelConfig:
    """The shape of a model `depth` layers deep; 0, and None, leave a choice to the rule."""
    traits = FAMILIES[family]
    # 64 units of width a layer: nanochat's aspect ratio (its LOG measured 128 as worse at equal compute).
    width = width or 64 * depth
    # 64 keeps several heads in the small models a CPU trains; nanochat's 128 wins only from depth 12 on, and there
    # the heads stay enough. GPT-2 has 64 at every size.
    head_dim = head_dim or (128 if depth >= 12 and width % 128 == 0 and family != "gpt2" else 64)
    heads = max(1, width // head_dim)
    # No grouping: it saves cache memory when serving, costs loss in training, and these caches are small.
    kv_heads = kv_heads or heads
    # Multiples of 64 keep the matrix units full.
    mlp_width = mlp_width or math.ceil(width * traits.mlp_ratio / 64) * 64
    return ModelConfig(
        family=family,
        vocab_size=vocab_size,
        layers=depth,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_width=mlp_width,
        context=context,
        # Tied: at depth 4 and 8,192 tokens the table alone is 2.1 M weights, 40 % of the model; a second one would cost
        # more than it brings at this size. nanochat has two.
        tie_embeddings=traits.ties if tie_embeddings is None else tie_embeddings,
        norm_eps=1e-5 if family == "gpt2" else 1e-6,
        softcap=traits.softcap,
    )
