"""The names and layouts of weights in published model folders, and ours.

Ours are Hugging Face's for Llama and Qwen behind a prefix, so there is nothing to rename in those. GPT-2 besides keeps
its matrices transposed (`Conv1D`) and queries, keys and values in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

_HEADS = ("lm_head.", "score.")  # these stand beside the transformer, not in it
# (ours, theirs), as patterns without groups; each name matches one at most of those that could be mixed up.
_RENAMED: dict[str, tuple[tuple[str, str], ...]] = {
    "nanochat": (("mlp.up_proj.", "mlp.fc1."), ("mlp.down_proj.", "mlp.fc2.")),
    "gpt2": (
        ("embed_tokens.", "wte."),
        ("embed_positions.", "wpe."),
        ("layers.", "h."),
        ("input_layernorm.", "ln_1."),
        ("post_attention_layernorm.", "ln_2."),
        ("self_attn.o_proj.", "attn.c_proj."),
        ("self_attn.", "attn."),
        ("mlp.up_proj.", "mlp.c_fc."),
        ("mlp.down_proj.", "mlp.c_proj."),
        ("norm.", "ln_f."),
    ),
}
# Tables and masks that old folders store; they are no weights.
_BUFFERS = re.compile(r"rotary_emb\.inv_freq$|\bh\.\d+\.attn\.(bias|masked_bias)$")
_QKV = ("q_proj", "k_proj", "v_proj")


def to_published(weights: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """Our weights under the names of the family's class in transformers."""
    pairs = _RENAMED.get(family, ())
    found = {_renamed(n, pairs): t for n, t in weights.items()}
    prefix = "model."
    if family == "gpt2":
        found, prefix = _joined(found), "transformer."
    return {n if n.startswith(_HEADS) else prefix + n: t for n, t in found.items()}


def from_published(weights: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """The weights of a folder under our names. What is in neither list keeps its name: the reader reports it."""
    prefix = "transformer." if family == "gpt2" else "model."
    found = {n.removeprefix(prefix): t for n, t in weights.items() if not _BUFFERS.search(n)}
    if family == "gpt2":
        found = _split(found)
    pairs = [(theirs, ours) for ours, theirs in _RENAMED.get(family, ())]
    return {_renamed(n, pairs): t for n, t in found.items()}


def _renamed(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        name = re.sub(rf"(^|\.){re.escape(old)}", rf"\g<1>{new}", name)
    return name


def _matrix(name: str) -> bool:
    """Whether GPT-2 keeps it transposed (under either's names for it)."""
    return ".weight" in name and (".attn." in name or ".mlp." in name)


def _joined(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2's layout: q, k and v in one, matrices transposed."""
    weights = {n: t.t() if _matrix(n) else t for n, t in weights.items()}
    found = {n: t for n, t in weights.items() if not any(part in n for part in _QKV)}
    for name in (n for n in weights if "q_proj" in n):
        parts = [weights[name.replace("q_proj", part)] for part in _QKV]
        found[name.replace("q_proj", "c_attn")] = torch.cat(parts, dim=-1)
    return found


def _split(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Back from GPT-2's layout."""
    found = {}
    for name, t in weights.items():
        if ".c_attn." in name:
            for part, piece in zip(_QKV, t.chunk(3, dim=-1), strict=True):
                found[name.replace("c_attn", part)] = piece
        else:
            found[name] = t
    return {n: t.t() if _matrix(n) and t.dim() == 2 else t for n, t in found.items()}
