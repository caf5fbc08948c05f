"""The step of one token a row against the transformer's own forward pass."""

from __future__ import annotations

import pytest
import torch

from llmctl.generate.cache import KVCache
from llmctl.generate.decoder import Decoder
from llmctl.model.config import ModelConfig
from llmctl.model.families import FAMILIES
from llmctl.model.lora import add_adapters
from llmctl.model.transformer import Transformer

LENGTHS = (3, 9, 1, 9)


def made(family: str, dtype: torch.dtype, **fields: object) -> Transformer:
    torch.manual_seed(1)
    kv_heads = 4 if family == "gpt2" else 2
    shape = ModelConfig(
        120, layers=2, width=48, heads=4, kv_heads=kv_heads, head_dim=12, mlp_width=96, context=32, family=family,
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip
    model = Transformer(shape).eval().requires_grad_(False)
    for p in model.parameters():
        p.normal_(0, p.shape[1] ** -0.5) if p.dim() > 1 else p.add_(torch.randn_like(p), alpha=0.2)
    return model.to(dtype)


def filled(model: Transformer, lengths: tuple[int, ...] = LENGTHS) -> KVCache:
    """A cache with prompts of those lengths in it, and little room for more."""
    width, config = max(lengths), model.config
    begins = torch.tensor([width - n for n in lengths])
    cache = KVCache(config.layers, config.kv_heads, config.head_dim, begins, model.embed_tokens.weight.dtype, width + 1)
    ids = torch.arange(width * len(lengths)).view(len(lengths), width) % config.vocab_size
    with torch.inference_mode():
        model(ids, positions=cache.extend(width), cache=cache)
    return cache


@torch.inference_mode()
def by_modules(model: Transformer, ids: torch.Tensor, cache: KVCache) -> torch.Tensor:
    return model.logits(model(ids[:, None], positions=cache.extend(1), cache=cache)[:, -1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [LENGTHS, (5,)])
def test_a_step_is_the_transformers_own(family: str, dtype: torch.dtype, lengths: tuple[int, ...]) -> None:
    exact = made(family, torch.float32, tie_embeddings=False)
    model = made(family, dtype, tie_embeddings=False)
    decoder, cache, wanted_cache = Decoder(model), filled(model, lengths), filled(exact, lengths)
    for step in range(4):
        ids = torch.arange(len(lengths)) + 20 * step
        found, wanted = decoder.step(ids, cache), by_modules(exact, ids, wanted_cache)
        room = 1e-5 if dtype == torch.float32 else 0.04  # bfloat16 keeps 8 bits
        assert (found - wanted).norm() <= room * wanted.norm()


def test_adapters_take_part() -> None:
    model = made("qwen3", torch.bfloat16)
    plain = Decoder(model).step(torch.arange(4), filled(model))
    add_adapters(model, rank=4, alpha=8)
    for name, p in model.named_parameters():
        if name.endswith("lora_B"):
            p.data.normal_(0, 0.3)
    found, wanted = (
        step(torch.arange(4), filled(model)) for step in (Decoder(model).step, lambda i, c: by_modules(model, i, c))
    )
    assert (found - wanted).norm() <= 0.02 * wanted.norm() < 0.2 * (plain - wanted).norm()
