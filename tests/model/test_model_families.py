"""Every family against transformers' own class: the same logits, both ways, and the same greedy tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from llmctl.errors import UserError
from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.config import ModelConfig, RopeScaling, dial
from llmctl.model.families import FAMILIES
from llmctl.model.folder import load_model, load_reward_model, save_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import RewardModel, Transformer
from llmctl.train.optimizer import is_block_matrix

V = 301  # odd on purpose; the tokenizer has fewer
BASE = {"vocab_size": V, "layers": 3, "width": 48, "heads": 4, "kv_heads": 2, "head_dim": 10, "mlp_width": 70}
STRETCH = RopeScaling(factor=8.0, low=1.0, high=4.0, original=16)
GPT2 = {"kv_heads": 4, "head_dim": 12, "norm_eps": 1e-5}

# One shape a line: everything that a family fixes, and each of its options.
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2", **GPT2},
    "gpt2-untied": {"family": "gpt2", **GPT2, "tie_embeddings": False},
    "gpt2-odd": {"family": "gpt2", **GPT2, "width": 33, "heads": 3, "kv_heads": 3, "head_dim": 11},
    "llama": {"family": "llama", "tie_embeddings": False, "norm_eps": 1e-5},
    "llama-tied": {"family": "llama"},
    "llama-biases": {"family": "llama", "attention_bias": True, "mlp_bias": True},
    "llama3-scaled": {"family": "llama", "rope_theta": 500000.0, "rope_scaling": STRETCH, "context": 128},
    "qwen2": {"family": "qwen2", "rope_theta": 1e6},
    "qwen2-untied": {"family": "qwen2", "tie_embeddings": False, "kv_heads": 1},
    "qwen3": {"family": "qwen3"},
    "qwen3-untied": {"family": "qwen3", "tie_embeddings": False, "kv_heads": 4, "attention_bias": True},
    "nanochat": {"family": "nanochat", "tie_embeddings": False, "softcap": 15.0},
    "nanochat-tied": {"family": "nanochat", "kv_heads": 4, "rope_theta": 1e5},
    "nanochat-biases": {"family": "nanochat", "softcap": 3.0, "attention_bias": True},
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a small text for a small vocabulary"], 290)


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Transformer:
    return randomised(ModelConfig(**({"context": 64} | BASE | SHAPES[request.param])))


def randomised(config: ModelConfig) -> Transformer:
    """A model whose every weight matters, biases and gains among them."""
    torch.manual_seed(0)
    found = Transformer(config).eval()
    for name, p in found.named_parameters():
        low, high = (-0.5, 0.5) if name.endswith("bias") else (0.5, 1.5)
        torch.nn.init.normal_(p, std=0.2) if p.dim() > 1 else torch.nn.init.uniform_(p, low, high)
    return found


def ids(rows: int, tokens: int) -> torch.Tensor:
    return torch.randint(0, V, (rows, tokens), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: Transformer, x: torch.Tensor) -> torch.Tensor:
    return model.logits(model(x))


def theirs(folder: Path) -> Any:
    found = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return found.eval()


def test_transformers_gives_the_same_logits(tmp_path: Path, tokenizer: Tokenizer, model: Transformer) -> None:
    save_model(tmp_path / "m", model, tokenizer)
    other = theirs(tmp_path / "m")
    assert [type(other).__name__] == model.config.to_hf()["architectures"]
    # Rows of full length, and one token longer than the context that rotary scaling began with.
    x = ids(3, model.config.context)
    with torch.no_grad():
        expected = other(x).logits
    assert expected.std() > 0.4
    assert (logits(model, x) - expected).abs().max() < 1e-4


def test_it_comes_back_as_it_was(tmp_path: Path, tokenizer: Tokenizer, model: Transformer) -> None:
    save_model(tmp_path / "m", model, tokenizer)
    found, _ = load_model(tmp_path / "m")
    assert found.config == model.config
    ours, read = model.state_dict(), found.state_dict()
    assert list(ours) == list(read) and all(torch.equal(ours[n], read[n]) for n in ours)
    assert all(p.is_contiguous() for p in found.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_folder_that_transformers_writes_is_read(
    tmp_path: Path, tokenizer: Tokenizer, model: Transformer, dtype: torch.dtype
) -> None:
    """Written by the other side, in shards, and in the types in which models are published."""
    save_model(tmp_path / "m", model, tokenizer)
    theirs(tmp_path / "m").to(dtype).save_pretrained(tmp_path / "again", max_shard_size="40KB")
    tokenizer.save(tmp_path / "again")
    assert (tmp_path / "again/model.safetensors.index.json").exists()
    found, _ = load_model(tmp_path / "again")
    assert found.config == model.config
    x = ids(2, 20)
    with torch.no_grad():
        assert (logits(found, x) - theirs(tmp_path / "again")(x).logits).abs().max() < 1e-4


def test_greedy_tokens_equal_those_of_generate(tmp_path: Path, tokenizer: Tokenizer, model: Transformer) -> None:
    """Through the cache, ragged prompts in one batch, against each prompt alone in transformers."""
    save_model(tmp_path / "m", model, tokenizer)
    other = theirs(tmp_path / "m")
    prompts = [row[:n].tolist() for row, n in zip(ids(3, 20), (20, 7, 1), strict=True)]
    engine = Engine(model, tokenizer, precision="fp32")
    made = engine.generate(prompts, Sampling(max_new_tokens=24, temperature=0.0))
    for prompt, samples in zip(prompts, made, strict=True):
        x = torch.tensor([prompt])
        whole = other.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=24, do_sample=False)
        expected = whole[0, len(prompt) :].tolist()
        assert samples[0].ids == expected[: len(samples[0].ids)]
        assert len(samples[0].ids) == 24 or samples[0].finish == "stop"


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "nanochat"])
def test_scores_equal_those_of_transformers(tmp_path: Path, tokenizer: Tokenizer, family: str) -> None:
    reward = RewardModel(randomised(ModelConfig(**(BASE | SHAPES[family] | {"context": 64})))).eval()
    save_model(tmp_path / "m", reward, tokenizer)
    other = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m", dtype=torch.float32)
    lengths, x = torch.tensor([20, 7, 1]), ids(3, 20) % 250
    x[torch.arange(20)[None] >= lengths[:, None]] = tokenizer.eos_id
    with torch.no_grad():
        assert torch.allclose(reward(x, lengths), other(x).logits[:, 0], atol=1e-5)


def test_a_nanochat_reward_model_comes_back(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """transformers has no such class, so it is held against itself."""
    reward = RewardModel(randomised(ModelConfig(**(BASE | SHAPES["nanochat"] | {"context": 64})))).eval()
    save_model(tmp_path / "m", reward, tokenizer)
    found, _ = load_reward_model(tmp_path / "m")
    x, lengths = ids(2, 9), torch.tensor([9, 4])
    assert torch.equal(found(x, lengths), reward(x, lengths))


def test_gpt2_as_openai_published_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Without the prefix, with the masks stored among the weights, and with few keys in the config."""
    model = randomised(ModelConfig(**(BASE | SHAPES["gpt2"] | {"mlp_width": 192, "context": 64})))
    save_model(tmp_path / "m", model, tokenizer)
    file = tmp_path / "m/model.safetensors"
    weights = {n.removeprefix("transformer."): t for n, t in load_file(file).items()}
    for layer in range(3):
        weights[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
        weights[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, file)
    least = {"model_type": "gpt2", "vocab_size": V, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}
    (tmp_path / "m/config.json").write_text(json.dumps(least))
    found, _ = load_model(tmp_path / "m")
    assert found.config == model.config
    assert torch.equal(found(ids(2, 64)), model(ids(2, 64)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation_function", "relu"),
        ("scale_attn_by_inverse_layer_idx", True),
        ("scale_attn_weights", False),
        ("add_cross_attention", True),
    ],
)
def test_what_gpt2s_config_may_also_ask_for_is_refused(key: str, value: Any) -> None:
    config = ModelConfig(**(BASE | SHAPES["gpt2"] | {"context": 64}))
    with pytest.raises(UserError, match=key):
        ModelConfig.from_hf(config.to_hf() | {key: value})


def test_llama_31s_config_as_published() -> None:
    """Keys as in meta-llama/Llama-3.2-1B (transformers 4's words)."""
    published = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "vocab_size": 128256,
    }
    found = ModelConfig.from_hf(published)
    assert found.rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192) and found.rope_theta == 500000.0
    assert found.parameters() == 1_235_814_400  # what its model card says: 1.23 B
    assert ModelConfig.from_hf(found.to_hf()) == found


@pytest.mark.parametrize(
    ("family", "shape", "count"),
    [
        ("gpt2", {"layers": 12, "width": 768, "heads": 12, "vocab_size": 50257, "context": 1024}, 124_439_808),
        ("gpt2", {"layers": 48, "width": 1600, "heads": 25, "vocab_size": 50257, "context": 1024}, 1_557_611_200),
    ],
)
def test_the_published_sizes_of_gpt2(family: str, shape: dict[str, Any], count: int) -> None:
    heads = shape["heads"]
    config = ModelConfig(
        **shape, family=family, kv_heads=heads, head_dim=shape["width"] // heads, mlp_width=4 * shape["width"]
    )
    assert config.parameters() == count


def test_counts_are_those_of_the_modules(model: Transformer) -> None:
    named = dict(model.named_parameters())
    config = model.config
    assert config.parameters() == sum(p.numel() for p in named.values())
    tables = [p.numel() for n, p in named.items() if n.startswith(("embed_", "lm_head"))]
    assert config.parameters(embeddings=False) == config.parameters() - sum(tables)
    assert config.matrix_parameters() == sum(p.numel() for n, p in named.items() if is_block_matrix(n, p))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_trained_from_scratch(tmp_path: Path, tokenizer: Tokenizer, family: str) -> None:
    """The dial's shape begins without an opinion, learns, and is loadable."""
    torch.manual_seed(0)
    model = Transformer(dial(2, V, 32, width=64, family=family))
    x = ids(4, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model.logits(model(x[:, :-1])).flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0] - 5.707) < 0.1, "the logarithm of the vocabulary"
    assert losses[-1] < 0.7 * losses[0]
    save_model(tmp_path / "m", model.eval(), tokenizer)
    with torch.no_grad():
        assert (logits(model, x) - theirs(tmp_path / "m")(x).logits).abs().max() < 1e-4


def test_packed_segments_equal_separate_rows(model: Transformer) -> None:
    a, b = ids(1, 23)[:, :9], ids(1, 23)[:, 9:]
    packed = model(
        torch.cat((a, b), 1),
        positions=torch.cat((torch.arange(9), torch.arange(14)))[None],
        segments=torch.tensor([[0] * 9 + [1] * 14]),
    )
    assert torch.allclose(packed, torch.cat((model(a), model(b)), 1), atol=2e-5)


def test_bfloat16_weights_give_nearly_the_same(model: Transformer) -> None:
    x = ids(1, 40)
    exact = logits(model, x)
    near = logits(model.bfloat16(), x)
    assert near.dtype == torch.float32
    assert (near - exact).abs().mean() < 0.06 * exact.abs().mean()


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "gpt2"},
        {"family": "gpt2", **GPT2, "kv_heads": 2},
        {"family": "gpt2", **GPT2, "softcap": 15.0},
        {"family": "gpt2", **GPT2, "rope_scaling": STRETCH},
        {"family": "qwen2", "attention_bias": True},
        {"family": "qwen3", "mlp_bias": True},
        {"family": "llama", "softcap": 15.0},
    ],
)
def test_what_a_family_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=str(changes["family"])):
        ModelConfig(**({"context": 64} | BASE | changes))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_one_graph_for_the_compiler(family: str) -> None:
    """Its choices are settled before the first token: nothing is asked while it runs, so no graph is broken."""
    model = randomised(ModelConfig(**(BASE | SHAPES[family] | {"context": 64})))
    x, targets = ids(2, 20), ids(2, 20)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    expected = model(x)
    assert torch.equal(compiled(x), expected)
    torch.nn.functional.cross_entropy(model.logits(compiled(x)).flatten(0, 1), targets.flatten()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["rope_type", "factor"]), inner),
    max_leaves=4,
)


@given(st.sampled_from(sorted(SHAPES)), st.data())
@settings(max_examples=300, deadline=None)
def test_a_config_with_nonsense_in_it_is_a_model_or_one_line(shape: str, data: st.DataObject) -> None:
    written = ModelConfig(**({"context": 64} | BASE | SHAPES[shape])).to_hf()
    keys = data.draw(st.lists(st.sampled_from([*written, "rope_scaling"]), min_size=1, max_size=3))
    try:
        found = ModelConfig.from_hf(written | {k: data.draw(junk) for k in keys})
    except UserError as e:
        assert "config.json" in e.message()
    else:
        assert found.parameters() > 0
