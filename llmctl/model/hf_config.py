"""`config.json` in transformers' words: written for transformers 4 and 5, vLLM and llama.cpp, and read back.

Whatever would be computed wrongly is refused by the name of its key, so that it never is silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.model.families import FAMILIES

if TYPE_CHECKING:
    from llmctl.model.config import ModelConfig

_ACTIVATIONS = {"swiglu": ("silu", "swish"), "relu2": ("relu2",), "gelu_new": ("gelu_new", "gelu_pytorch_tanh")}
# How GPT-2 calls what all others call as on the right.
_GPT2 = {
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "rms_norm_eps",
    "activation_function": "hidden_act",
}
# What transformers takes where a file says nothing.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {"max_position_embeddings": 1024, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    "qwen3": {"head_dim": 128},
    "nanochat": {"final_logit_softcapping": 15.0},
}
_MAY_BE_NULL = ("final_logit_softcapping",)  # null is a value of its own here; elsewhere it is the same as no key


def write(config: ModelConfig, reward: bool) -> dict[str, Any]:
    """The `config.json` of a model, without the token ids; `reward` for one with a scalar head."""
    found = _write_gpt2(config) if config.family == "gpt2" else _write_common(config)
    head = "ForSequenceClassification" if reward else config.traits.causal
    found = {"architectures": [config.traits.classes + head], "model_type": config.family} | found
    return found | ({"num_labels": 1, "id2label": {"0": "score"}, "label2id": {"score": 0}} if reward else {})


def _write_common(config: ModelConfig) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default"}
    if (scaling := config.rope_scaling) is not None:
        rope = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low,
            "high_freq_factor": scaling.high,
            "original_max_position_embeddings": scaling.original,
        }
    found: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,  # transformers 4, vLLM and llama.cpp read this one
        "rope_parameters": rope | {"rope_theta": config.rope_theta},  # transformers 5 reads this one
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_act": _ACTIVATIONS[config.traits.mlp][0],
        "attention_bias": config.attention_bias,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "float32",
    }
    if config.rope_scaling is not None:
        found["rope_scaling"] = rope
    if "mlp_bias" in config.traits.options:
        found["mlp_bias"] = config.mlp_bias
    if config.family in ("qwen2", "qwen3"):
        found["use_sliding_window"] = False
    if "softcap" in config.traits.options:
        found["final_logit_softcapping"] = config.softcap or None
    return found


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "n_layer": config.layers,
        "n_embd": config.width,
        "n_head": config.heads,
        "n_inner": config.mlp_width,
        "n_positions": config.context,
        "n_ctx": config.context,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "activation_function": "gelu_new",
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "float32",
    }


@contextmanager
def errors(where: str) -> Iterator[None]:
    """What a damaged `config.json` raises, as one line."""
    try:
        yield
    except KeyError as e:
        raise UserError(f"{e.args[0]!r} is missing", where, "the model folder is damaged or no such model") from e
    except (TypeError, ValueError, AttributeError, ArithmeticError) as e:
        raise UserError(f"it describes no model: {e}", where) from e


def read(found: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of `ModelConfig` that a `config.json` gives (`rope_scaling` as a dict or None)."""
    family = found.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"model_type {family!r} cannot be read", where, f"families: {', '.join(FAMILIES)}")
    if family == "gpt2":
        found = found | {common: found[own] for own, common in _GPT2.items() if own in found}
    found = _DEFAULTS.get(family, {}) | {k: v for k, v in found.items() if v is not None or k in _MAY_BE_NULL}
    _refuse(found, family, where)
    options = FAMILIES[family].options
    rope = _rope(found)
    heads, width = int(found["num_attention_heads"]), int(found["hidden_size"])
    return {
        "family": family,
        "vocab_size": int(found["vocab_size"]),
        "layers": int(found["num_hidden_layers"]),
        "width": width,
        "heads": heads,
        "kv_heads": int(found.get("num_key_value_heads", heads)),
        "head_dim": int(found.get("head_dim", width // heads)),
        "mlp_width": int(found.get("intermediate_size", 4 * width) if family == "gpt2" else found["intermediate_size"]),
        "context": int(found.get("max_position_embeddings", 2048)),
        "rope_theta": float(rope.get("rope_theta", 10000.0)),
        "norm_eps": float(found.get("rms_norm_eps", 1e-6)),
        "tie_embeddings": bool(found.get("tie_word_embeddings", False)),
        "attention_bias": bool(found.get("attention_bias")),
        "mlp_bias": bool(found.get("mlp_bias")),
        "softcap": float(found.get("final_logit_softcapping") or 0.0) if "softcap" in options else 0.0,
        "rope_scaling": _llama3(rope, found) if rope.get("rope_type") == "llama3" else None,
    }


def _rope(found: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings, from where transformers 5 has them and from the two keys of transformers 4."""
    rope = {"rope_theta": found.get("rope_theta")} | (found.get("rope_parameters") or {})
    rope |= found.get("rope_scaling") or {}
    rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    return {k: v for k, v in rope.items() if v is not None}


def _llama3(rope: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    return {
        "factor": float(rope["factor"]),
        "low": float(rope["low_freq_factor"]),
        "high": float(rope["high_freq_factor"]),
        "original": int(rope.get("original_max_position_embeddings") or found.get("max_position_embeddings", 2048)),
    }


def _refuse(found: dict[str, Any], family: str, where: str) -> None:
    """UserError for an option that would be computed wrongly."""
    traits, rope = FAMILIES[family], _rope(found)
    kind = rope["rope_type"] if traits.positions != "learned" else "default"
    turned = rope.get("partial_rotary_factor", found.get("partial_rotary_factor", 1.0))
    activation = found.get("hidden_act", _ACTIVATIONS[traits.mlp][0])
    known = activation in _ACTIVATIONS[traits.mlp]
    wrong = {
        "rope_scaling": kind not in ("default", "llama3") and kind,
        "partial_rotary_factor": turned != 1.0 and str(turned),
        "activation_function" if family == "gpt2" else "hidden_act": not known and activation,
        "use_sliding_window": found.get("use_sliding_window"),
        "layer_types": sorted(set(found.get("layer_types") or []) - {"full_attention"}),
        "scale_attn_by_inverse_layer_idx": found.get("scale_attn_by_inverse_layer_idx"),
        "scale_attn_weights": found.get("scale_attn_weights") is False and "false",
        "add_cross_attention": found.get("add_cross_attention"),
        "quantization_config": found.get("quantization_config") and "quantised weights",
    }
    wrong |= {key: found.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts")}
    wrong |= {key: found.get(key) for key in ("attention_bias", "mlp_bias") if key not in traits.options}
    for key, value in wrong.items():
        if value:
            raise UserError(f"{key} ({value!r}) is not supported", where, "choose a model without it")
