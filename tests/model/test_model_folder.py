"""Model folders: read back as written, read from transformers' own, and named when they are damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmctl.errors import UserError
from llmctl.model.config import ModelConfig
from llmctl.model.folder import is_reward_model, load_model, load_reward_model, save_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import RewardModel, Transformer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["a small text for a small vocabulary"], 290)


def made(tokenizer: Tokenizer, **changes) -> Transformer:
    base = {
        "vocab_size": tokenizer.vocab_size,
        "layers": 2,
        "width": 32,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "mlp_width": 48,
    }
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**(base | {"context": 64} | changes)))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path, tokenizer: Tokenizer, tied: bool) -> None:
    model = made(tokenizer, tie_embeddings=tied)
    save_model(tmp_path / "m", model, tokenizer, card="Trained on nothing.", extra={"llmctl_depth": 2})
    found, theirs = load_model(tmp_path / "m")
    assert found.config == model.config and theirs.digest == tokenizer.digest
    assert all(torch.equal(a, b) for a, b in zip(found.state_dict().values(), model.state_dict().values(), strict=True))
    assert all(p.requires_grad and not p.is_meta for p in found.parameters())
    assert json.loads((tmp_path / "m/config.json").read_text())["llmctl_depth"] == 2
    card = (tmp_path / "m/README.md").read_text()
    assert "Trained on nothing." in card and f"{model.config.parameters():,}" in card
    assert not is_reward_model(tmp_path / "m")


def test_a_reward_model_is_read_back(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = RewardModel(made(tokenizer, tie_embeddings=False))
    save_model(tmp_path / "m", model, tokenizer)
    found, _ = load_reward_model(tmp_path / "m")
    x, lengths = torch.randint(0, 200, (2, 9)), torch.tensor([9, 4])
    assert torch.equal(found(x, lengths), model(x, lengths))
    assert is_reward_model(tmp_path / "m")
    with pytest.raises(UserError, match="reward model"):
        load_model(tmp_path / "m")


def test_a_writing_model_is_no_reward_model(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "m", made(tokenizer), tokenizer)
    with pytest.raises(UserError, match="no reward model"):
        load_reward_model(tmp_path / "m")


def test_generation_stops_where_a_turn_or_a_document_ends(tmp_path: Path, tokenizer: Tokenizer) -> None:
    from transformers import GenerationConfig

    save_model(tmp_path / "m", made(tokenizer), tokenizer)
    found = GenerationConfig.from_pretrained(tmp_path / "m")
    assert found.eos_token_id == [tokenizer.id_of("<|endoftext|>"), tokenizer.id_of("<|im_end|>")]
    assert found.pad_token_id == tokenizer.eos_id


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_reads_folders_that_transformers_wrote(tmp_path: Path, tokenizer: Tokenizer, family: str, shard: str) -> None:
    import transformers

    prefix = {"qwen3": "Qwen3", "llama": "Llama"}[family]
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    theirs = getattr(transformers, f"{prefix}ForCausalLM")(config).eval()
    theirs.save_pretrained(tmp_path / "m", max_shard_size=shard)
    tokenizer.save(tmp_path / "m")
    assert (len(list((tmp_path / "m").glob("*.safetensors"))) > 1) == (shard == "20KB")
    model, _ = load_model(tmp_path / "m")
    x = torch.randint(0, 200, (2, 20))
    with torch.no_grad():
        assert (model.logits(model(x)) - theirs(x).logits).abs().max() < 1e-4


def test_bfloat16_weights_are_read_as_float32(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "m", made(tokenizer), tokenizer)
    file = tmp_path / "m/model.safetensors"
    save_file({n: t.bfloat16() for n, t in load_file(file).items()}, file)
    model, _ = load_model(tmp_path / "m")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def rewrite(path: Path, **changes) -> None:
    path.write_text(json.dumps({k: v for k, v in (json.loads(path.read_text()) | changes).items() if v != "gone"}))


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda m: (m / "config.json").unlink(), "config.json"),
        (lambda m: (m / "config.json").write_text("{"), "config.json"),
        (lambda m: (m / "config.json").write_text("[]"), "config.json"),
        (lambda m: rewrite(m / "config.json", hidden_size="gone"), "hidden_size"),
        (lambda m: rewrite(m / "config.json", hidden_size="wide"), "config.json"),
        (lambda m: rewrite(m / "config.json", num_hidden_layers=3), "layers.2"),
        (lambda m: rewrite(m / "config.json", num_hidden_layers=1), "layers.1"),
        (lambda m: rewrite(m / "config.json", intermediate_size=40), "gate_proj"),
        (lambda m: rewrite(m / "config.json", model_type="mamba"), "mamba"),
        (lambda m: rewrite(m / "config.json", rope_scaling={"rope_type": "yarn"}), "yarn"),
        (lambda m: rewrite(m / "config.json", attention_bias=True), "q_proj.bias"),
        (lambda m: rewrite(m / "config.json", model_type="qwen2", attention_bias=True), "attention_bias"),
        (lambda m: rewrite(m / "config.json", model_type="qwen3_moe"), "qwen3_moe"),
        (lambda m: rewrite(m / "config.json", num_local_experts=8), "num_local_experts"),
        (lambda m: rewrite(m / "config.json", use_sliding_window=True), "use_sliding_window"),
        (lambda m: rewrite(m / "config.json", layer_types=["sliding_attention"]), "layer_types"),
        (lambda m: rewrite(m / "config.json", hidden_act="gelu"), "hidden_act"),
        (lambda m: rewrite(m / "config.json", partial_rotary_factor=0.5), "partial_rotary_factor"),
        (lambda m: rewrite(m / "config.json", partial_rotary_factor=0), "partial_rotary_factor"),
        (lambda m: rewrite(m / "config.json", quantization_config={"bits": 4}), "quantization_config"),
        (lambda m: rewrite(m / "config.json", rope_scaling={"rope_type": "llama3"}), "factor"),
        (lambda m: rewrite(m / "config.json", rope_scaling=3), "config.json"),
        (lambda m: rewrite(m / "config.json", architectures=3, hidden_size=0), "config.json"),
        (lambda m: (m / "model.safetensors").unlink(), "model.safetensors"),
        (lambda m: (m / "model.safetensors").write_bytes(b"\0" * 100), "model.safetensors"),
        (lambda m: (m / "model.safetensors").write_bytes((m / "model.safetensors").read_bytes()[:-9]), "safetensors"),
        (lambda m: (m / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda m: (m / "tokenizer.json").write_text("{}"), "tokenizer.json"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path, tokenizer: Tokenizer, harm, named: str) -> None:
    save_model(tmp_path / "m", made(tokenizer), tokenizer)
    harm(tmp_path / "m")
    with pytest.raises(UserError) as e:
        load_model(tmp_path / "m")
    assert named in e.value.message() and str(tmp_path) in e.value.message()


def test_pickled_weights_are_never_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "m", made(tokenizer), tokenizer)
    torch.save(load_file(tmp_path / "m/model.safetensors"), tmp_path / "m/pytorch_model.bin")
    (tmp_path / "m/model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors only"):
        load_model(tmp_path / "m")


def test_an_index_cannot_point_outside_the_folder(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "m", made(tokenizer), tokenizer)
    (tmp_path / "m/model.safetensors").rename(tmp_path / "model.safetensors")
    index = {"weight_map": {"model.norm.weight": "../model.safetensors"}}
    (tmp_path / "m/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="outside"):
        load_model(tmp_path / "m")


def test_a_tokenizer_too_large_for_the_model_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "m", made(tokenizer, vocab_size=280), tokenizer)
    with pytest.raises(UserError, match="280"):
        load_model(tmp_path / "m")
