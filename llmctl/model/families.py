"""What sets one family of models apart from another: a few choices, and the names that transformers gives them.

The transformer is one; a family is a row of this table. Only what a family fixes stands here. What differs between
models of a family (widths, tied tables, an optional bias) is in `ModelConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FamilyName = Literal["qwen3", "qwen2", "llama", "nanochat", "gpt2"]


@dataclass(frozen=True)
class Family:
    """The choices of one family."""

    classes: str
    """How the names of its classes in transformers begin."""
    norm: Literal["rms", "rms_unweighted", "layer"] = "rms"
    """`rms` has a gain, `rms_unweighted` has none, `layer` subtracts the mean and has a gain and a bias."""
    positions: Literal["rope", "rope_backwards", "learned"] = "rope"
    """`rope` turns queries and keys by their positions, `rope_backwards` the other way round (nanochat; of the same
    weights it makes another function); `learned` adds a vector a position, and knows no position behind the last."""
    mlp: Literal["swiglu", "relu2", "gelu_new"] = "swiglu"
    """What is between the MLP's matrices. `gelu_new` is the tanh approximation that GPT-2 was trained with."""
    qk_norm: Literal["none", "weighted", "unweighted"] = "none"
    """Whether queries and keys are normalised, a head at a time."""
    embedding_norm: bool = False
    """Whether the residual stream begins with a norm."""
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    options: tuple[str, ...] = ()
    """Settings of `ModelConfig` that models of the family may have."""
    causal: str = "ForCausalLM"
    """How the name of the class that writes text ends."""
    ties: bool = True
    """What the dial takes where nobody says: one table for the embedding and the head."""
    softcap: float = 0.0
    """What the dial takes: the largest logit there can be."""
    mlp_ratio: float = 4.0
    """What the dial takes: the MLP's width by the model's."""


_GATED = 8 / 3  # three matrices where a plain MLP has two, so 8/3 holds the weights of the usual 4 (arXiv:2002.05202)

FAMILIES: dict[str, Family] = {
    "qwen3": Family("Qwen3", qk_norm="weighted", options=("attention_bias", "rope_scaling"), mlp_ratio=_GATED),
    "qwen2": Family("Qwen2", qkv_bias=True, options=("rope_scaling",), mlp_ratio=_GATED),
    "llama": Family("Llama", options=("attention_bias", "mlp_bias", "rope_scaling"), mlp_ratio=_GATED),
    "nanochat": Family(
        "NanoChat",
        norm="rms_unweighted",
        positions="rope_backwards",
        mlp="relu2",
        qk_norm="unweighted",
        embedding_norm=True,
        options=("attention_bias", "rope_scaling", "softcap"),
        ties=False,
        softcap=15.0,
    ),
    "gpt2": Family(
        "GPT2",
        causal="LMHeadModel",
        norm="layer",
        positions="learned",
        mlp="gelu_new",
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
    ),
}
