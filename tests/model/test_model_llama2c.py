"""llama2.c's files: the real 260K-parameter model, its vocabulary, and what is wrong with damaged ones."""

from __future__ import annotations

import random
import shutil
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from llmctl.errors import UserError
from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import render
from llmctl.model.config import ModelConfig
from llmctl.model.folder import load_model, read_config, save_model
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.vocabulary import with_chat_tokens


@pytest.fixture(scope="module")
def stories(data: Path) -> Path:
    return data / "model/stories260K"


def greedy(folder: Path) -> bytes:
    model, tokenizer = load_model(folder)
    engine = Engine(model, tokenizer, precision="fp32")
    return engine.generate([[tokenizer.bos_id]], Sampling(200, temperature=0.0))[0][0].text.encode()


def test_the_recorded_greedy_tokens_of_a_trained_model(stories: Path) -> None:
    assert greedy(stories / "stories260K.bin") == (stories / "expected_greedy_200.txt").read_bytes()


def test_its_export_does_the_same_in_transformers_and_here(stories: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = load_model(stories / "stories260K.bin")
    save_model(tmp_path / "m", model, tokenizer)
    expected = (stories / "expected_greedy_200.txt").read_bytes()
    assert greedy(tmp_path / "m") == expected
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    x = torch.tensor([[tokenizer.bos_id]])
    made = other.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=200, do_sample=False)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert theirs.decode(made[0], skip_special_tokens=True).encode() == expected
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    with torch.no_grad():
        assert (model.logits(model(made)) - other(made).logits).abs().max() < 1e-4


def test_the_header_is_the_config(stories: Path) -> None:
    found = ModelConfig.from_hf(read_config(stories / "stories260K.bin"))
    assert (found.layers, found.heads, found.kv_heads, found.parameters()) == (5, 8, 4, 260_032)


def by_scores(file: Path, text: str) -> list[int]:
    """run.c's encode, written out: characters or bytes, then the best-scored pair, again and again."""
    data, at, tokens = file.read_bytes(), 4, []
    while at < len(data):
        score, length = struct.unpack_from("<fi", data, at)
        tokens.append((data[at + 8 : at + 8 + length], score))
        at += 8 + length
    known = {t: i for i, (t, _) in reversed(list(enumerate(tokens)))}
    ids = [known[b" "]] if text else []
    for character in text:
        whole = character.encode()
        ids += [known[whole]] if whole in known else [b + 3 for b in whole]
    while True:
        pairs = [(known.get(tokens[a][0] + tokens[b][0]), n) for n, (a, b) in enumerate(pairwise(ids))]
        best = max(((tokens[i][1], -n, i) for i, n in pairs if i is not None), default=None)
        if best is None:
            return ids
        ids[-best[1] : -best[1] + 2] = [best[2]]


def test_ids_are_those_of_llama2c(stories: Path) -> None:
    file = stories / "tok512.bin"
    tokenizer, chance = Tokenizer.load(file), random.Random(0)
    words = [
        "Once",
        "upon",
        "a",
        "time",
        "there",
        "was",
        "a",
        "little",
        "girl,",
        "she",
        "loved",
        "the",
        "park.",
        "naïve",
        "🙂",
        "12",
        "我",
        "aaaaaa",
    ]
    texts = [" ".join(chance.choices(words, k=12)) for _ in range(200)]
    texts += ["".join(chance.choices("the andéß\t\n.,ol ", k=30)) for _ in range(200)]
    for text in [*texts, "", " ", "  a", "a  ", "a\n\nb"]:
        assert tokenizer.encode(text) == by_scores(file, text)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_untied_model_has_its_head_behind_the_tables(tmp_path: Path, stories: Path) -> None:
    """A negative vocabulary size says so; the matrices are checked by what they compute, one unit at a time."""
    chance = np.random.default_rng(0)
    sizes = [("embed", 512 * 8), ("norms and matrices", 2 * 8 + 2 * 64 + 2 * 32 + 3 * 8 * 12 + 8), ("rope", 16 * 4)]
    body = [chance.normal(size=n).astype("<f4") for _, n in sizes]
    head = chance.normal(size=(512, 8)).astype("<f4")
    header = struct.pack("<7i", 8, 12, 1, 2, 1, -512, 16)
    (tmp_path / "m.bin").write_bytes(header + b"".join(b.tobytes() for b in [*body, head.ravel()]))
    shutil.copy(stories / "tok512.bin", tmp_path / "tokenizer.bin")
    model, _ = load_model(tmp_path / "m.bin")
    assert not model.config.tie_embeddings and model.lm_head is not None
    assert np.array_equal(model.lm_head.weight.detach().numpy(), head)
    assert np.array_equal(model.embed_tokens.weight.detach().numpy().ravel(), body[0])


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda b: b[:20], "too short"),
        (lambda b: b[:-4], "damaged"),
        (lambda b: b + b"\0" * 4, "damaged"),
        (lambda b: b"ak42" + b[4:], "damaged"),
        (lambda b: struct.pack("<7i", 0, 1, 1, 1, 1, 1, 1) + b[28:], "damaged"),
        (lambda b: struct.pack("<7i", 2**31 - 1, 2**31 - 1, 2**31 - 1, 1, 1, 2**31 - 1, 1) + b[28:], "damaged"),
    ],
)
def test_a_damaged_model_is_named(tmp_path: Path, stories: Path, harm, named: str) -> None:
    (tmp_path / "m.bin").write_bytes(harm((stories / "stories260K.bin").read_bytes()))
    shutil.copy(stories / "tok512.bin", tmp_path)
    with pytest.raises(UserError, match=named) as e:
        load_model(tmp_path / "m.bin")
    assert "m.bin" in e.value.message()


def test_a_damaged_or_missing_vocabulary_is_named(tmp_path: Path, stories: Path) -> None:
    shutil.copy(stories / "stories260K.bin", tmp_path)
    with pytest.raises(UserError, match="no vocabulary"):
        load_model(tmp_path / "stories260K.bin")
    (tmp_path / "tok512.bin").write_bytes((stories / "tok512.bin").read_bytes()[:-3])
    with pytest.raises(UserError, match=r"tok512\.bin"):
        load_model(tmp_path / "stories260K.bin")


def test_it_learns_the_chat_format_as_transformers_reads_it(stories: Path, tmp_path: Path) -> None:
    """SentencePiece puts a space before each text; so must both, around every special token."""
    from transformers import AutoTokenizer

    model, tokenizer = with_chat_tokens(*load_model(stories / "stories260K.bin"))
    save_model(tmp_path / "m", model, tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "m")
    messages = [{"role": "user", "content": "Who is  Lily?\n"}, {"role": "assistant", "content": "A girl. 🙂"}]
    ids = theirs.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    assert ids == render(messages, tokenizer).ids == render(messages, Tokenizer.load(tmp_path / "m")).ids
    assert "Who is  Lily?\n" in tokenizer.decode(ids) and model.config.vocab_size == tokenizer.vocab_size
