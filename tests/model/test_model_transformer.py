"""The transformer against transformers' own, and its promises: causal, segments apart, cache exact."""

from __future__ import annotations

import math
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from llmctl.model.config import ModelConfig, dial
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import RewardModel, Transformer

V = 300


def shape(**changes) -> ModelConfig:
    base = {
        "vocab_size": V,
        "layers": 3,
        "width": 48,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 16,
        "mlp_width": 80,
        "context": 64,
    }
    return ModelConfig(**(base | changes))


def randomised(config: ModelConfig, seed: int = 0) -> Transformer:
    """A model whose every weight matters: nothing zero, gains not one, scores far from uniform."""
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2) if p.dim() > 1 else torch.nn.init.uniform_(p, 0.5, 1.5)
    return model


def ids(rows: int, tokens: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, V, (rows, tokens), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a small text for a small vocabulary"], 290)


@pytest.mark.parametrize(("family", "tied", "kv"), product(("qwen3", "llama"), (True, False), (4, 2)))
def test_logits_equal_those_of_transformers(tmp_path: Path, tokenizer: Tokenizer, family, tied, kv) -> None:
    from transformers import AutoModelForCausalLM

    model = randomised(shape(family=family, tie_embeddings=tied, kv_heads=kv, rope_theta=5000.0))
    save_model(tmp_path / "m", model, tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    assert type(theirs).__name__.lower().startswith(family)
    x = ids(3, 50)
    with torch.no_grad():
        ours, other = model.logits(model(x)), theirs(x).logits
    assert other.std() > 0.5
    assert (ours - other).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_scores_equal_those_of_transformers(tmp_path: Path, tokenizer: Tokenizer, family: str) -> None:
    from transformers import AutoModelForSequenceClassification

    model = RewardModel(randomised(shape(family=family))).eval()
    save_model(tmp_path / "m", model, tokenizer)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m", dtype=torch.float32)
    pad, lengths = tokenizer.eos_id, torch.tensor([20, 7, 1])
    x = ids(3, 20) % 250  # no padding id among the real ones
    x[torch.arange(20)[None] >= lengths[:, None]] = pad
    with torch.no_grad():
        assert torch.allclose(model(x, lengths), theirs(x).logits[:, 0], atol=1e-5)


def test_a_score_does_not_see_the_padding() -> None:
    model = RewardModel(randomised(shape())).eval()
    x, lengths = ids(2, 12), torch.tensor([12, 5])
    other = x.clone()
    other[1, 5:] = 7
    assert torch.equal(model(x, lengths), model(other, lengths))


def test_the_past_does_not_see_the_future() -> None:
    model = randomised(shape())
    x = ids(1, 20)
    other = x.clone()
    other[0, 12:] = (other[0, 12:] + 1) % V
    assert torch.allclose(model(x)[:, :12], model(other)[:, :12], atol=1e-6)
    assert not torch.allclose(model(x)[:, 12:], model(other)[:, 12:], atol=1e-3)


def test_packed_segments_equal_separate_rows() -> None:
    model = randomised(shape())
    a, b = ids(1, 9, 1), ids(1, 14, 2)
    packed = model(
        torch.cat((a, b), 1),
        positions=torch.cat((torch.arange(9), torch.arange(14)))[None],
        segments=torch.tensor([[0] * 9 + [1] * 14]),
    )
    assert torch.allclose(packed, torch.cat((model(a), model(b)), 1), atol=1e-5)


class PlainCache:
    """The cache protocol in its simplest form."""

    def __init__(self) -> None:
        self.mask: torch.Tensor | None = None
        self.kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if layer in self.kept:
            k, v = torch.cat((self.kept[layer][0], k), 2), torch.cat((self.kept[layer][1], v), 2)
        self.kept[layer] = k, v
        return k, v


def test_a_cache_gives_what_a_full_pass_gives() -> None:
    model, x, cache = randomised(shape()), ids(2, 12), PlainCache()
    whole = model(x)
    parts = [model(x[:, :7], positions=torch.arange(7)[None], cache=cache)]
    parts.append(model(x[:, 7:8], positions=torch.tensor([[7]]), cache=cache))
    cache.mask = torch.ones(4, 12, dtype=torch.bool).tril(8)[None, None].expand(2, 1, 4, 12)
    parts.append(model(x[:, 8:], positions=torch.arange(8, 12)[None], cache=cache))
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_several_tokens_behind_a_filled_cache_need_a_mask() -> None:
    model, cache = randomised(shape()), PlainCache()
    model(ids(1, 4), positions=torch.arange(4)[None], cache=cache)
    with pytest.raises(AssertionError, match="mask"):
        model(ids(1, 2), positions=torch.arange(4, 6)[None], cache=cache)


def test_attention_depends_on_distance_not_on_place() -> None:
    model, x = randomised(shape()), ids(1, 10)
    assert torch.allclose(model(x), model(x, positions=torch.arange(100, 110)[None]), atol=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_a_fresh_model_predicts_nothing_in_particular(tied: bool) -> None:
    torch.manual_seed(0)
    model = Transformer(dial(4, 2048, 64, tie_embeddings=tied))
    x = torch.randint(0, 2048, (4, 65))
    loss = F.cross_entropy(model.logits(model(x[:, :-1])).flatten(0, 1), x[:, 1:].flatten())
    assert abs(loss.item() - math.log(2048)) < 0.15
    assert torch.equal(model.norm(model.embed_tokens(x)), model(x)), "every block begins as the identity"


@pytest.mark.parametrize("config", [shape(), shape(family="llama", tie_embeddings=False), dial(6, 8192, 256)])
def test_the_count_of_parameters_is_the_models(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = Transformer(config)
    assert config.parameters() == sum(p.numel() for p in model.parameters())


def test_flops_by_hand() -> None:
    config = ModelConfig(
        vocab_size=10, layers=2, width=8, heads=2, kv_heads=1, head_dim=4, mlp_width=16, context=32, family="llama"
    )
    block = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16 + 2 * 8
    assert config.flops_per_token() == 6 * (2 * block + 8 + 80) + 12 * 2 * 8 * 32
    assert config.flops_per_token(16) < config.flops_per_token(32)


def test_autocast_stays_near_float32_and_trains() -> None:
    model, x = randomised(shape()).train(), ids(2, 16)
    exact = model.logits(model(x))
    with torch.autocast("cpu", torch.bfloat16):
        near = model.logits(model(x))
    assert near.dtype == torch.float32
    assert (near - exact).abs().mean() < 0.05 * exact.abs().mean()
    near.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_weights_cast_to_bfloat16_keep_exact_positions() -> None:
    model, x = randomised(shape()), ids(1, 40)
    exact = model.logits(model(x))
    near = model.bfloat16()
    assert (near.logits(near(x)) - exact).abs().mean() < 0.05 * exact.abs().mean()


@pytest.mark.slow
def test_a_compiled_model_is_the_same_model() -> None:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    model, x = randomised(shape(layers=2)), ids(2, 16)
    compiled = torch.compile(model, dynamic=False)
    assert torch.allclose(compiled(x), model(x), atol=1e-4)


def test_the_dial_sets_a_shape_that_holds_together() -> None:
    for depth in (1, 2, 4, 6, 12, 24):
        config = dial(depth, 8192, 256)
        assert config.heads * config.head_dim == config.width == 64 * depth
        assert config.mlp_width % 64 == 0 and config.layers == depth
    assert dial(4, 100, 8, width=96, kv_heads=1).width == 96


@pytest.mark.parametrize("changes", [{"kv_heads": 3}, {"head_dim": 15}, {"layers": 0}])
def test_an_impossible_shape_is_refused(changes: dict) -> None:
    with pytest.raises(ValueError):
        shape(**changes)
