"""The shape of a transformer, the one dial that sets it, and its two Hugging Face forms.

`qwen3` (QK-norm, SwiGLU) is what llmctl trains; `llama` (the same without QK-norm) is read and written besides. Both
are classes that transformers, vLLM and llama.cpp ship, so a folder written here needs no code of ours to be loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from llmctl.errors import UserError

Family = Literal["qwen3", "llama"]
_CAUSAL = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
_REWARD = {"qwen3": "Qwen3ForSequenceClassification", "llama": "LlamaForSequenceClassification"}


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
    family: Family = "qwen3"
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "layers", "width", "heads", "kv_heads", "head_dim", "mlp_width", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it should be 1 or more")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) should be a multiple of kv_heads ({self.kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; it should be even (RoPE turns pairs)")

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised a head."""
        return self.family == "qwen3"

    def parameters(self, embeddings: bool = True) -> int:
        """How many weights; without `embeddings`, only those of the blocks (what Muon trains, and norms)."""
        attention = self.width * self.head_dim * 2 * (self.heads + self.kv_heads)
        norms = 2 * self.width + (2 * self.head_dim if self.qk_norm else 0)
        blocks = self.layers * (attention + 3 * self.width * self.mlp_width + norms) + self.width
        tables = self.vocab_size * self.width * (1 if self.tie_embeddings else 2)
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
        found: dict[str, Any] = {
            "architectures": [(_REWARD if reward else _CAUSAL)[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.mlp_width,
            "max_position_embeddings": self.context,
            "rope_theta": self.rope_theta,  # transformers 4, vLLM and llama.cpp read this one
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},  # transformers 5 reads this one
            "rms_norm_eps": self.norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "use_cache": True,
            "torch_dtype": "float32",
        }
        if self.family == "llama":
            found["mlp_bias"] = False
        else:
            found["use_sliding_window"] = False
        return found | ({"num_labels": 1, "id2label": {"0": "score"}, "label2id": {"score": 0}} if reward else {})

    @classmethod
    def from_hf(cls, found: dict[str, Any], where: str = "config.json") -> ModelConfig:
        """The shape that a `config.json` describes. UserError for what this transformer does not compute."""
        _refuse_unknown(found, where)
        try:
            rope = found.get("rope_parameters") or {}
            heads, width = int(found["num_attention_heads"]), int(found["hidden_size"])
            return cls(
                family=found["model_type"],
                vocab_size=int(found["vocab_size"]),
                layers=int(found["num_hidden_layers"]),
                width=width,
                heads=heads,
                kv_heads=int(found.get("num_key_value_heads") or heads),
                head_dim=int(found.get("head_dim") or width // heads),
                mlp_width=int(found["intermediate_size"]),
                context=int(found.get("max_position_embeddings") or 2048),
                rope_theta=float(rope.get("rope_theta") or found.get("rope_theta") or 10000.0),
                norm_eps=float(found.get("rms_norm_eps") or 1e-6),
                tie_embeddings=bool(found.get("tie_word_embeddings", False)),
            )
        except KeyError as e:
            raise UserError(f"{e.args[0]!r} is missing", where, "the model folder is damaged or no such model") from e
        except (TypeError, ValueError) as e:
            raise UserError(f"it describes no model: {e}", where) from e


def _refuse_unknown(found: dict[str, Any], where: str) -> None:
    """UserError for a family or an option that would be computed wrongly, so that it never is silently."""
    family = found.get("model_type")
    if family not in get_args(Family):
        raise UserError(f"model_type {family!r} cannot be read", where, f"families: {', '.join(get_args(Family))}")
    rope = found.get("rope_scaling") or found.get("rope_parameters") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    options = {
        "rope scaling": kind != "default" and kind,
        "attention_bias": found.get("attention_bias"),
        "mlp_bias": found.get("mlp_bias"),
        "sliding window": found.get("use_sliding_window"),
        "hidden_act": found.get("hidden_act", "silu") != "silu" and found.get("hidden_act"),
    }
    for name, value in options.items():
        if value:
            raise UserError(f"{name} ({value!r}) is not supported", where, "choose a model without it")


def dial(
    depth: int,
    vocab_size: int,
    context: int,
    *,
    width: int = 0,
    head_dim: int = 0,
    kv_heads: int = 0,
    mlp_width: int = 0,
    tie_embeddings: bool = True,
    family: Family = "qwen3",
) -> ModelConfig:
    """The shape of a model `depth` layers deep; 0 leaves a width to the rule."""
    # 64 units of width a layer: nanochat's aspect ratio (its LOG measured 128 as worse at equal compute).
    width = width or 64 * depth
    # 64 keeps several heads in the small models a CPU trains; nanochat's 128 wins only from depth 12 on, and there
    # the heads stay enough.
    head_dim = head_dim or (128 if depth >= 12 and width % 128 == 0 else 64)
    heads = max(1, width // head_dim)
    # No grouping: it saves cache memory when serving, costs loss in training, and these caches are small.
    kv_heads = kv_heads or heads
    # SwiGLU has three matrices where a plain MLP has two, so 8/3 of the width holds the weights of the usual 4
    # (arXiv:2002.05202); multiples of 64 keep the matrix units full.
    mlp_width = mlp_width or -(-width * 8 // 3 // 64) * 64
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
        # more than it brings at this size.
        tie_embeddings=tie_embeddings,
    )
