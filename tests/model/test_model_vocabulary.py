"""A model from elsewhere learns the chat format: nothing it knew changes, and transformers reads what is saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llmctl.model.chat_format import CHAT_TOKENS, render
from llmctl.model.config import ModelConfig
from llmctl.model.folder import load_model, save_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import Transformer
from llmctl.model.vocabulary import with_chat_tokens


@pytest.fixture
def plain() -> Tokenizer:
    """A byte-level tokenizer that has never heard of chats."""
    made = train_tokenizer(["user assistant a small text for a small vocabulary"], 300)
    spec = made._spec | {"added_tokens": made._spec["added_tokens"][:1]}
    return Tokenizer(spec, {"eos_token": "<|endoftext|>", "chat_template": "of its own"})


def made(vocab_size: int, tied: bool) -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(vocab_size, 1, 16, 2, 2, 8, 24, 64, family="llama", tie_embeddings=tied)
    model = Transformer(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("room", [0, 4, 40])
def test_chat_tokens_are_added_behind_what_is_known(plain: Tokenizer, tied: bool, room: int) -> None:
    known = plain.vocab_size
    model = made(known + room, tied)
    x = torch.randint(0, known, (2, 9), generator=torch.Generator().manual_seed(0))
    before = model.logits(model(x))
    model, grown = with_chat_tokens(model, plain)
    assert grown.chats and grown.vocab_size == known + len(CHAT_TOKENS)
    size = model.config.vocab_size
    assert size == max(known + room, grown.vocab_size) == len(model.embed_tokens.weight) == len(model.head)
    assert torch.equal(model.logits(model(x))[..., :known], before[..., :known])
    new = slice(known, grown.vocab_size)
    assert torch.allclose(model.head[new], model.head[:known].mean(0)) and model.head.requires_grad
    assert model.config.parameters() == sum(p.numel() for p in model.parameters())
    assert with_chat_tokens(model, grown) == (model, grown)


def test_the_saved_folder_holds_conversations_in_transformers(tmp_path: Path, plain: Tokenizer) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_model(tmp_path / "m", *with_chat_tokens(made(plain.vocab_size, True), plain))
    model, tokenizer = load_model(tmp_path / "m")
    messages = [{"role": "user", "content": "a small text"}, {"role": "assistant", "content": "for a user"}]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "m")
    ids = theirs.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    assert ids == render(messages, tokenizer).ids
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    x = torch.tensor([ids])
    with torch.no_grad():
        assert (model.logits(model(x)) - other(x).logits).abs().max() < 1e-4


def test_a_tokenizer_that_stays_the_same_keeps_its_files(tmp_path: Path, plain: Tokenizer) -> None:
    """Byte for byte, whatever else its makers wrote into them."""
    model = made(plain.vocab_size, True)
    save_model(tmp_path / "theirs", model, plain)
    config = '{"tokenizer_class":"PreTrainedTokenizerFast",  "eos_token":"<|endoftext|>", "their": "own"}'
    (tmp_path / "theirs/tokenizer_config.json").write_text(config)
    (tmp_path / "theirs/chat_template.jinja").write_text("of their own")
    (tmp_path / "theirs/special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}')
    (tmp_path / "theirs/pickle.bin").write_text("not ours to keep")
    save_model(tmp_path / "again", *load_model(tmp_path / "theirs"))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()
    assert not (tmp_path / "again/pickle.bin").exists()


def test_a_tokenizer_by_another_name_keeps_nothing_of_its_neighbours(tmp_path: Path, plain: Tokenizer) -> None:
    train_tokenizer(["another"], 280).save(tmp_path)
    (tmp_path / "mine.json").write_text(json.dumps(plain._spec))
    Tokenizer.load(tmp_path / "mine.json").save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").digest == plain.digest


def test_a_document_begins_with_a_token_of_its_own_where_there_is_one(plain: Tokenizer) -> None:
    assert plain.bos_id == plain.eos_id
    other = Tokenizer(plain._spec, plain.config | {"bos_token": {"content": "a"}})
    assert other.bos_id == plain.encode("a")[0] != plain.eos_id
    assert Tokenizer(plain._spec, plain.config | {"bos_token": None}).bos_id == plain.eos_id
