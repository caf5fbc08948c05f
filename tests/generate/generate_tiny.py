"""A model with something to say (random but confident weights) and plain references to hold the engine against."""

from __future__ import annotations

from random import Random

import torch

from llmctl.model.config import ModelConfig
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import Transformer

CONTEXT = 128


def tokenizer() -> Tokenizer:
    return train_tokenizer(iter(["the cat sat on the mat and said: 1 + 1 = 2, très bien 😀"] * 4), 300)


def model(vocab_size: int, kv_heads: int = 2, seed: int = 0, sharpness: float = 3.0) -> Transformer:
    torch.manual_seed(seed)
    found = Transformer(
        ModelConfig(
            vocab_size, layers=2, width=48, heads=4, kv_heads=kv_heads, head_dim=12, mlp_width=96, context=CONTEXT
        )
    )
    with torch.no_grad():
        for p in found.parameters():
            p.normal_(0, sharpness * p.shape[1] ** -0.5) if p.dim() > 1 else p.add_(torch.randn_like(p), alpha=0.2)
    return found.eval()


def prompts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = Random(seed)
    return [[rng.randrange(256) for _ in range(length)] for length in lengths]


@torch.no_grad()
def logits_after(model: Transformer, ids: list[int]) -> torch.Tensor:
    """(V,) by a full forward pass without a cache."""
    return model.logits(model(torch.tensor([ids]))[0, -1])


def greedy_without_cache(model: Transformer, prompt: list[int], new: int, stops: tuple[int, ...]) -> list[int]:
    ids = list(prompt)
    while len(ids) < min(len(prompt) + new, model.config.context):
        ids.append(int(logits_after(model, ids).argmax()))
        if ids[-1] in stops:
            break
    return ids[len(prompt) :]


@torch.no_grad()
def rescored(model: Transformer, prompt: list[int], new: list[int], temperature: float = 1.0) -> torch.Tensor:
    """(len(new),) log-probabilities by one full forward pass."""
    hidden = model(torch.tensor([prompt + new]))[0, len(prompt) - 1 : -1]
    return (model.logits(hidden) / temperature).log_softmax(-1)[range(len(new)), new]
