"""llama2.c's two files: weights with a header of seven numbers, and a SentencePiece vocabulary with scores.

github.com/karpathy/llama2.c, `run.c` (the layout without a version number). The vocabulary is looked for beside the
weights: `tokenizer.bin`, or another `tok*.bin`.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmctl.errors import UserError

SUFFIX = ".bin"
_HEADER = struct.Struct("<7i")
_FIELDS = ("width", "mlp_width", "layers", "heads", "kv_heads", "vocab_size", "context")
_BOS, _EOS = "<s>", "</s>"


def read_config(path: Path) -> dict[str, Any]:
    """The header in the words of a Llama `config.json`. UserError where the file is no such model."""
    shape = _shape(path)
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": shape["width"],
        "intermediate_size": shape["mlp_width"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "vocab_size": abs(shape["vocab_size"]),
        "max_position_embeddings": shape["context"],
        "tie_word_embeddings": shape["vocab_size"] > 0,
        "rms_norm_eps": 1e-5,
    }


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor under our names, float32."""
    s = _shape(path)
    head = s["width"] // s["heads"]
    numbers = torch.from_numpy(np.fromfile(path, "<f4", offset=_HEADER.size).astype(np.float32, copy=False))
    at = 0
    found = {}
    for name, shape in _layout(s, head):
        size = int(np.prod(shape))
        found[name] = numbers[at : at + size].view(shape)
        at += size
    for name in [n for n in found if n.startswith("layers.")]:
        for layer, t in enumerate(found.pop(name)):
            found[name.replace("layers.", f"layers.{layer}.")] = _halves(t, head) if _turned(name) else t
    return {n: t for n, t in found.items() if not n.startswith("rope.")}


def _layout(s: dict[str, int], head: int) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape) of all tensors, in the order of the file."""
    layers, width, keys = s["layers"], s["width"], s["kv_heads"] * head
    found: list[tuple[str, tuple[int, ...]]] = [
        ("embed_tokens.weight", (abs(s["vocab_size"]), width)),
        ("layers.input_layernorm.weight", (layers, width)),
        ("layers.self_attn.q_proj.weight", (layers, width, width)),
        ("layers.self_attn.k_proj.weight", (layers, keys, width)),
        ("layers.self_attn.v_proj.weight", (layers, keys, width)),
        ("layers.self_attn.o_proj.weight", (layers, width, width)),
        ("layers.post_attention_layernorm.weight", (layers, width)),
        ("layers.mlp.gate_proj.weight", (layers, s["mlp_width"], width)),
        ("layers.mlp.down_proj.weight", (layers, width, s["mlp_width"])),
        ("layers.mlp.up_proj.weight", (layers, s["mlp_width"], width)),
        ("norm.weight", (width,)),
        ("rope.tables", (2, s["context"], head // 2)),  # no longer used by anyone
    ]
    return found + ([] if s["vocab_size"] > 0 else [("lm_head.weight", (-s["vocab_size"], width))])


def _turned(name: str) -> bool:
    return "q_proj" in name or "k_proj" in name


def _halves(t: Tensor, head: int) -> Tensor:
    """Rows of a query or key matrix, from the order in which RoPE pairs neighbours to ours, which pairs halves."""
    return t.view(-1, head // 2, 2, t.shape[1]).transpose(1, 2).reshape(t.shape)


def _shape(path: Path) -> dict[str, int]:
    """The header, checked against the size of the file."""
    try:
        with path.open("rb") as f:
            numbers = _HEADER.unpack(f.read(_HEADER.size))
    except OSError as e:
        raise UserError(f"cannot read it: {e.strerror}", str(path)) from e
    except struct.error as e:
        raise UserError("too short for a llama2.c model", str(path)) from e
    s = dict(zip(_FIELDS, numbers, strict=True))
    sane = all(s[n] > 0 for n in _FIELDS if n != "vocab_size") and s["vocab_size"] and not s["width"] % s["heads"]
    size = sum(int(np.prod(shape, dtype=object)) for _, shape in _layout(s, s["width"] // s["heads"])) if sane else -1
    if _HEADER.size + 4 * size != path.stat().st_size:
        raise UserError(
            "damaged, or no llama2.c model", str(path), "give a .bin of llama2.c's first layout, or a model folder"
        )
    return s


def read_tokenizer(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of a `tokenizer.json` and a `tokenizer_config.json` from a vocabulary, or from beside a model."""
    file = path if path.name.startswith("tok") else _beside(path)
    tokens = _read_tokens(file)
    vocab = {t: i for i, (t, _) in enumerate(tokens)}
    return _spec(vocab, _merges(tokens, vocab)), {"bos_token": _BOS, "eos_token": _EOS, "unk_token": "<unk>"}


def _beside(path: Path) -> Path:
    found = sorted(path.parent.glob("tok*.bin"), key=lambda p: (p.name != "tokenizer.bin", p.name))
    if not found:
        raise UserError("there is no vocabulary beside it", str(path), "put llama2.c's tokenizer.bin there")
    return found[0]


def _read_tokens(path: Path) -> list[tuple[str, float]]:
    """(token, score) in SentencePiece's spelling. The file has spaces for U+2581, line breaks around BOS and EOS."""
    try:
        data = path.read_bytes()
        found, at = [], 4  # behind the length of the longest
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            token = data[at + 8 : at + 8 + length]
            if length < 0 or len(token) != length:
                raise ValueError("a token is cut off")
            found.append((token.decode(), score))
            at += 8 + length
    except OSError as e:
        raise UserError(f"cannot read it: {e.strerror}", str(path)) from e
    except (struct.error, ValueError) as e:
        raise UserError(f"damaged, or no llama2.c vocabulary: {e}", str(path)) from e
    names = {1: _BOS, 2: _EOS}
    return [(names.get(i, t.replace(" ", "▁")), score) for i, (t, score) in enumerate(found)]


def _merges(tokens: list[tuple[str, float]], vocab: dict[str, int]) -> list[list[str]]:
    """Every pair of tokens that makes a token, the best-scored first: the order in which llama2.c merges."""
    found = [
        (-score, token[:cut], token[cut:])
        for token, score in tokens[259:]  # behind <unk>, <s>, </s> and the bytes
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    return [[left, right] for _, left, right in sorted(found)]


def _spec(vocab: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spaces: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": t, **flags} for t, i in list(vocab.items())[:3]],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
