"""A model as two files: `model.bin` with the weights and the tokenizer, and `run.c`, a C program that needs no library.

The layout is what `run.c` reads: a header, then one part behind the other, each beginning at a multiple of 64 bytes,
little-endian, weights in float32. Every family is written in the same parts: a bias that a model lacks is zeros, a gain
ones, so that the program asks few questions.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmctl.errors import UserError
from llmctl.model.chat_format import IM_END, IM_START
from llmctl.model.config import ModelConfig
from llmctl.model.export.pattern import Program, Run, compile_pattern
from llmctl.model.export.vocabulary import Kind, Vocabulary, byte_ids, vocabulary
from llmctl.model.rope import stretched
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer

PROGRAM = Path(__file__).with_name("run.c")
_MAGIC = b"llmctl\0\1"
_HEADER = struct.Struct("<8sq27i2fi")
_MLP = {"swiglu": 0, "relu2": 1, "gelu_new": 2}


def write_c(folder: Path, model: Transformer, tokenizer: Tokenizer) -> list[str]:
    """Put `model.bin` and `run.c` into `folder`. Returns their names.

    UserError for a tokenizer that `run.c` cannot run.
    """
    words = vocabulary(tokenizer, model.config.vocab_size)
    if words.composes:
        raise UserError("its tokenizer brings text into the form NFC first, which run.c does not", fix="--format gguf")
    program = (
        compile_pattern(words.pattern) if words.pattern else Program([], {}, np.zeros(1, "<i4"), np.ones(1, "<u4"))
    )
    tables = _tables(words, program)
    with open(folder / "model.bin", "wb") as f:
        f.write(bytes(_HEADER.size))
        for part in (*tables, *_weights(model)):
            f.write(bytes(-f.tell() % 64))
            f.write(np.ascontiguousarray(part).data)
        f.write(bytes(-f.tell() % 64))
        size = f.tell()
        f.seek(0)
        f.write(_header(size, model, tokenizer, words, program))
    shutil.copyfile(PROGRAM, folder / "run.c")
    return ["model.bin", "run.c"]


def _header(size: int, model: Transformer, tokenizer: Tokenizer, words: Vocabulary, program: Program) -> bytes:
    c, t = model.config, model.config.traits
    special = [tokenizer.specials.get(name, -1) for name in (IM_START, "<|im_sep|>", IM_END)]
    shape = [c.layers, c.width, c.heads, c.kv_heads, c.head_dim, c.mlp_width, c.vocab_size, c.context]
    kinds = [t.norm == "layer", t.qk_norm != "none", _MLP[t.mlp], t.embedding_norm, t.positions == "learned"]
    counts = [sum(map(len, words.pieces)), words.kinds.count(Kind.NORMAL), len(words.merges), len(words.ends)]
    counts += [sum(map(len, program.alternatives)), len(program.alternatives), len(program.starts)]
    how = [c.tie_embeddings, words.byte_level, words.whole_pieces, words.start]
    return _HEADER.pack(_MAGIC, size, *shape, *kinds, *how, *special, *counts, c.norm_eps, c.softcap, 0)


def _tables(words: Vocabulary, program: Program) -> list[np.ndarray]:
    """The tokenizer: what stands before the weights, in the order of `load` in run.c."""
    normal = [i for i, kind in enumerate(words.kinds) if kind is Kind.NORMAL]
    merges = sorted((left, right, rank, merged) for rank, (left, right, merged) in enumerate(words.merges))
    steps = [_step(run, program) for alternative in program.alternatives for run in alternative]
    return [
        np.cumsum([0, *map(len, words.pieces)], dtype="<i4"),
        np.frombuffer(b"".join(words.pieces), np.uint8),
        np.array(words.kinds, np.uint8),
        np.array(sorted(normal, key=lambda i: words.pieces[i]), "<i4"),
        np.array(merges, "<i4"),
        np.array(byte_ids(words), "<i4"),
        np.array(words.ends, "<i4"),
        np.array(steps, "<i4"),
        np.cumsum([0, *map(len, program.alternatives)], dtype="<i4"),
        program.starts.astype("<i4"),
        program.masks.astype("<u4"),
    ]


def _step(run: Run, program: Program) -> tuple[int, int, int, int]:
    return program.classes[run.atom], run.least, run.most, run.look


def _weights(model: Transformer) -> Iterator[np.ndarray]:
    """Every part with numbers in it, float32, in the order of `load` in run.c."""
    c = model.config
    yield _frequencies(c)
    yield _numbers(model.embed_tokens.weight)
    yield _numbers(model.embed_positions.weight) if model.embed_positions is not None else np.zeros(0, "<f4")
    for block in model.layers:
        a, m = block.self_attn, block.mlp
        maps = [block.input_layernorm, a.q_proj, a.k_proj, a.v_proj, a.q_norm, a.k_norm, a.o_proj]
        maps += [block.post_attention_layernorm, *([m.gate_proj] if hasattr(m, "gate_proj") else []), m.up_proj]
        for part in (*maps, m.down_proj):
            yield from _map(part, c.head_dim if part in (a.q_norm, a.k_norm) else c.width)
    yield from _map(model.norm, c.width)
    if model.lm_head is not None:
        yield _numbers(model.lm_head.weight)


def _map(module: torch.nn.Module, width: int) -> Iterator[np.ndarray]:
    """The matrix or gain of `module`, or ones for a norm of `width` without one; and its bias, or zeros."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    yield np.ones(width, "<f4") if weight is None else _numbers(weight)
    yield np.zeros(width if weight is None else len(weight), "<f4") if bias is None else _numbers(bias)


def _numbers(t: Tensor) -> np.ndarray:
    return t.detach().float().cpu().numpy().astype("<f4", copy=False)


def _frequencies(c: ModelConfig) -> np.ndarray:
    """(E/2,) angles a position, as `rope_table` has them."""
    steps = torch.arange(0, c.head_dim - 1, 2, dtype=torch.float32) / c.head_dim
    turns = 1.0 / c.rope_theta**steps
    if c.rope_scaling is not None:
        turns = stretched(turns, c.rope_scaling)
    return _numbers(-turns if c.traits.positions == "rope_backwards" else turns)
