"""A model as one GGUF file, which llama.cpp and all that stands on it (Ollama, LM Studio, llama-cpp-python) load.

llama.cpp knows the families llama, qwen2, qwen3 and gpt2 under these names. Matrices are written in the type asked for,
norms and biases in float32, as llama.cpp's own converter does.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmctl.errors import UserError
from llmctl.model.chat_format import end_of_turn
from llmctl.model.config import ModelConfig
from llmctl.model.export.gguf_pre import pre_tokenizer
from llmctl.model.export.vocabulary import Kind, Vocabulary, vocabulary
from llmctl.model.rope import stretched
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer

_KNOWN = ("llama", "qwen2", "qwen3", "gpt2")
# Ours -> GGUF's; a layer's names behind `layers.N.` and `blk.N.`.
_NAMES = {
    "embed_tokens": "token_embd",
    "embed_positions": "position_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(file: Path, model: Transformer, tokenizer: Tokenizer, type: str, chats: bool) -> list[str]:
    """Write `file`. `chats`: its texts are conversations, which begin with no token of their own.

    Returns notes on what llama.cpp will do differently. UserError for what it cannot do, or without the package `gguf`.
    """
    c = model.config
    _refuse(c)
    gguf = _package()
    words = vocabulary(tokenizer, c.vocab_size)
    writer = gguf.GGUFWriter(file, c.family)
    kind = gguf.GGMLQuantizationType[type.upper()]
    writer.add_name(file.stem.removesuffix(f"-{type}"))
    writer.add_file_type(gguf.LlamaFileType[{"f32": "ALL_F32"}.get(type, f"MOSTLY_{type.upper()}")])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, c)
    notes = _add_tokenizer(writer, words, tokenizer, chats)
    for name, t in _tensors(model):
        numbers = t.detach().float().cpu().contiguous().numpy()
        # The tensors that ggml computes with in float32: vectors, and the table of positions, which is added.
        as_type = gguf.GGMLQuantizationType.F32 if t.dim() < 2 or name.startswith("position_embd") else kind
        if as_type == gguf.GGMLQuantizationType.Q8_0 and t.shape[-1] % 32:
            as_type = gguf.GGMLQuantizationType.F16  # rows that are no whole blocks: what llama.cpp's converter does
        writer.add_tensor(name, gguf.quantize(numbers, as_type), raw_dtype=as_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return notes


def _refuse(c: ModelConfig) -> None:
    """UserError for a model that llama.cpp has no code for."""
    problem = ""
    if c.family not in _KNOWN:
        problem = f"llama.cpp does not know the family {c.family}"
    elif c.family != "llama" and (c.attention_bias or c.rope_scaling is not None):
        problem = (
            f"llama.cpp reads no {'attention biases' if c.attention_bias else 'rope scaling'} in {c.family} models"
        )
    if problem:
        raise UserError(problem, fix="--format hf and --format c can write it")


def _package() -> Any:
    try:
        return importlib.import_module("gguf")
    except ImportError as e:
        raise UserError("--format gguf needs the package gguf", fix="pip install gguf") from e


def _add_shape(writer: Any, c: ModelConfig) -> None:
    writer.add_vocab_size(c.vocab_size)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(c.mlp_width)
    writer.add_block_count(c.layers)
    writer.add_head_count(c.heads)
    if c.traits.norm == "layer":
        writer.add_layer_norm_eps(c.norm_eps)
        return
    writer.add_layer_norm_rms_eps(c.norm_eps)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_key_length(c.head_dim)
    writer.add_value_length(c.head_dim)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_theta)


def _add_tokenizer(writer: Any, words: Vocabulary, tokenizer: Tokenizer, chats: bool) -> list[str]:
    """Write the tokenizer. Returns the notes."""
    notes: list[str] = []
    if words.byte_level:
        pre, notes = pre_tokenizer(words)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(words.names)
        writer.add_token_merges([f"{words.names[a]} {words.names[b]}" for a, b, _ in words.merges])
        writer.add_add_space_prefix(False)
    else:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(words.names)
        writer.add_token_scores(_scores(words))
        writer.add_add_space_prefix(True)
    writer.add_token_types(words.kinds)
    writer.add_bos_token_id(words.start)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_pad_token_id(tokenizer.eos_id)
    writer.add_add_bos_token(not chats)
    if (turn := end_of_turn(tokenizer)) is not None:
        writer.add_eot_token_id(turn)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
    if words.composes:
        notes.append("llama.cpp does not bring text into the form NFC, which this model's tokenizer does")
    return notes


def _scores(words: Vocabulary) -> list[float]:
    """How early each token is merged: llama.cpp joins the neighbours whose token has the highest score."""
    scores = [0.0 if kind in (Kind.CONTROL, Kind.BYTE, Kind.UNKNOWN) else -1e9 for kind in words.kinds]
    for rank, (_, _, merged) in enumerate(words.merges):
        scores[merged] = max(scores[merged], -float(rank + 1))
    return scores


def _tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) as llama.cpp wants them."""
    c = model.config
    if c.rope_scaling is not None:
        turns = 1.0 / c.rope_theta ** (torch.arange(0, c.head_dim, 2, dtype=torch.float32) / c.head_dim)
        yield "rope_freqs.weight", turns / stretched(turns, c.rope_scaling)
    weights = model.state_dict()
    for name, t in weights.items():
        if c.family == "gpt2" and ".self_attn." in name and "o_proj" not in name:
            if "q_proj" in name:  # queries, keys and values are one tensor
                parts = [weights[name.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")]
                yield _renamed(name).replace("attn_q", "attn_qkv"), torch.cat(parts)
            continue
        if c.family == "llama" and ("q_proj" in name or "k_proj" in name):
            t = _neighbours(t, c.head_dim)
        yield _renamed(name), t


def _renamed(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("layers."):
        return f"{_NAMES[stem]}.{kind}"
    _, layer, inner = stem.split(".", 2)
    return f"blk.{layer}.{_NAMES[inner]}.{kind}"


def _neighbours(t: Tensor, head_dim: int) -> Tensor:
    """The rows of a query or key matrix (or bias) in the order of llama.cpp's RoPE for llama, which pairs neighbours
    where Hugging Face's pairs halves.
    """
    return t.view(-1, 2, head_dim // 2, *t.shape[1:]).transpose(1, 2).reshape(t.shape)
