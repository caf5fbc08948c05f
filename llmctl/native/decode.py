"""What `decode.cpp` takes: a packed model and a batch of tokens, as it sees them in memory."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from llmctl.native.build import library

TYPES = {torch.bfloat16: 0, torch.float32: 1}
ACTIVATIONS = {"swiglu": 0, "relu2": 1, "gelu_new": 2}
PANEL, LINE = 32, 64  # outputs of a panel, bytes of a line: lines.hpp
LARGEST_HEAD = 256

_Pointer, _Count = ctypes.c_void_p, ctypes.c_int64
LAYER_MATRICES = ("qkv", "out", "gate", "up", "down")
LAYER_VECTORS = (
    "qkv_bias", "out_bias", "gate_bias", "up_bias", "down_bias",
    "norm1", "norm1_bias", "norm2", "norm2_bias", "q_gain", "k_gain",
)  # fmt: skip
_SIZES = ("type", "layers", "width", "heads", "kv_heads", "head_dim", "mlp", "vocab")
_CHOICES = ("activation", "centred", "qk_norm", "embedding_norm")


class Layer(ctypes.Structure):
    """Pointers to the weights of a layer; None for what it has not."""

    _fields_ = [(name, _Pointer) for name in (*LAYER_MATRICES, *LAYER_VECTORS)]


class Model(ctypes.Structure):
    """The shape, and pointers to the rest of the weights."""

    _fields_ = [
        *((name, _Count) for name in (*_SIZES, *_CHOICES)),
        ("eps", ctypes.c_double),
        ("softcap", ctypes.c_double),
        ("layer", ctypes.POINTER(Layer)),
        *((name, _Pointer) for name in ("embed", "positions", "head", "norm", "norm_bias")),
    ]


class Tokens(ctypes.Structure):
    """N tokens, each with its row and column of a cache (decode.cpp says what each field is)."""

    _fields_ = [
        *((name, _Count) for name in ("count", "room", "several")),
        *((name, _Pointer) for name in ("ids", "rows", "at", "begins")),
        *((name, ctypes.POINTER(_Pointer)) for name in ("keys", "values")),
        ("rope", _Pointer),
        ("wanted", _Count),
        *((name, _Pointer) for name in ("which", "logits")),
    ]


def available() -> bool:
    """Whether the kernel can be had here."""
    return library("decode") is not None


def pointers(tensors: list[Tensor]) -> Any:
    """Where the data of each is."""
    return (_Pointer * len(tensors))(*(t.data_ptr() for t in tensors))


def packed_size(outputs: int, inputs: int, dtype: torch.dtype) -> int:
    """How many numbers a packed (outputs, inputs) matrix has."""
    wide = LINE // dtype.itemsize
    return -(-outputs // PANEL) * PANEL * (-(-inputs // wide) * wide)


def pack(to: Tensor, weight: Tensor) -> None:
    """Put a contiguous `weight` (outputs, inputs) into `to` (packed_size,) in the order in which `step` reads it."""
    found = library("decode")
    assert found is not None and weight.is_contiguous()
    outputs, inputs = map(_Count, weight.shape)
    where = _Pointer(to.data_ptr()), _Pointer(weight.data_ptr())
    found.pack_weights(*where, _Count(TYPES[weight.dtype]), outputs, inputs, _Count(torch.get_num_threads()))


def step(model: Model, tokens: Tokens) -> None:
    """Take `tokens` through all layers: their keys and values go into the cache, their logits where they are wanted."""
    found = library("decode")
    assert found is not None
    found.step(ctypes.byref(model), ctypes.byref(tokens), _Count(torch.get_num_threads()))
