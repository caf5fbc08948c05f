"""GGUF: every number and name read back by the format's own reader, and the same tokens from llama.cpp itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_made import FAMILIES, PROMPTS, greedy, hard_texts, made

from llmctl.errors import UserError
from llmctl.model.config import RopeScaling
from llmctl.model.export.gguf import write_gguf
from llmctl.model.folder import load_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer

gguf = pytest.importorskip("gguf")
KNOWN = [name for name in FAMILIES if name != "nanochat"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["hello world, the quick brown fox says 'hello' 42 times"] * 3, 300, digits=1)


class Read:
    """A file as gguf's reader gives it: `facts` by key, `tensors` by name as float32."""

    def __init__(self, file: Path) -> None:
        reader = gguf.GGUFReader(file)
        self.facts = {key: field.contents() for key, field in reader.fields.items()}
        self.types = {t.name: t.tensor_type.name for t in reader.tensors}
        self.tensors = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}


def paired_as_neighbours(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp's rotation wants them, written out one by one."""
    per_head = len(rows) // heads
    order = [
        h * per_head + half * (per_head // 2) + i for h in range(heads) for i in range(per_head // 2) for half in (0, 1)
    ]
    return rows[order]


@pytest.mark.parametrize("family", KNOWN)
def test_weights_and_shape_are_read_back(tokenizer: Tokenizer, tmp_path: Path, family: str) -> None:
    model = made(family, tokenizer)
    c = model.config
    assert write_gguf(tmp_path / "m-f32.gguf", model, tokenizer, "f32", chats=False) == []
    read = Read(tmp_path / "m-f32.gguf")
    facts, arch = read.facts, FAMILIES[family]["family"]
    assert facts["general.architecture"] == arch and facts["general.name"] == "m"
    assert facts[f"{arch}.context_length"] == 90 and facts[f"{arch}.attention.head_count"] == 4
    assert sum(t.size for n, t in read.tensors.items() if n != "rope_freqs.weight") == c.parameters()
    weights = {n: t.detach().numpy() for n, t in model.state_dict().items()}
    q, k = weights["layers.1.self_attn.q_proj.weight"], weights["layers.1.self_attn.k_proj.weight"]
    if arch == "llama":
        q, k = paired_as_neighbours(q, 4), paired_as_neighbours(k, 2)
    if arch == "gpt2":
        whole = np.concatenate([q, k, weights["layers.1.self_attn.v_proj.weight"]])
        assert np.array_equal(read.tensors["blk.1.attn_qkv.weight"], whole)
    else:
        assert np.array_equal(read.tensors["blk.1.attn_q.weight"], q)
        assert np.array_equal(read.tensors["blk.1.attn_k.weight"], k)
        assert facts[f"{arch}.rope.freq_base"] == 10000.0 and facts[f"{arch}.attention.head_count_kv"] == 2
    assert np.array_equal(read.tensors["token_embd.weight"], weights["embed_tokens.weight"])


def test_the_tokenizer_is_read_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", made("qwen3", tokenizer), tokenizer, "f16", chats=True)
    facts = Read(tmp_path / "m.gguf").facts
    tokens, kinds = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    assert (facts["tokenizer.ggml.model"], facts["tokenizer.ggml.pre"]) == ("gpt2", "qwen2")
    assert len(tokens) == len(kinds) == tokenizer.vocab_size + 3
    assert all(tokens[i] == name and kinds[i] == 3 for name, i in tokenizer.specials.items())
    assert kinds[-3:] == [5, 5, 5] and set(kinds[:256]) == {1}
    assert tokens[facts["tokenizer.ggml.eot_token_id"]] == "<|im_end|>"
    assert tokens[facts["tokenizer.ggml.eos_token_id"]] == "<|endoftext|>"
    assert facts["tokenizer.ggml.add_bos_token"] is False and "im_sep" in facts["tokenizer.chat_template"]
    write_gguf(tmp_path / "b.gguf", made("qwen3", tokenizer), tokenizer, "f16", chats=False)
    assert Read(tmp_path / "b.gguf").facts["tokenizer.ggml.add_bos_token"] is True


@pytest.mark.parametrize(("type", "step"), [("f16", 2**-11), ("q8_0", 1 / 254 + 2**-11)])
def test_smaller_types_round_and_no_more(tokenizer: Tokenizer, tmp_path: Path, type: str, step: float) -> None:
    model = made("qwen3", tokenizer, mlp_width=72)  # down_proj's rows of 72 are no whole blocks of 32
    write_gguf(tmp_path / "m.gguf", model, tokenizer, type, chats=False)
    read = Read(tmp_path / "m.gguf")
    assert read.types["blk.0.attn_q.weight"] == type.upper() and read.types["blk.0.attn_norm.weight"] == "F32"
    assert read.types["blk.0.ffn_down.weight"] == "F16"
    up = model.layers[0].mlp.up_proj.weight.detach().numpy()
    blocks = up.reshape(-1, 32 if type == "q8_0" else 1)
    allowed = np.abs(blocks).max(1, keepdims=True) * step  # of q8_0 the scale is rounded too
    assert (np.abs(read.tensors["blk.0.ffn_up.weight"].reshape(blocks.shape) - blocks) <= allowed + 1e-7).all()


@pytest.mark.parametrize(("digits", "pre"), [(1, "qwen2"), (3, "smaug-bpe"), (2, "smaug-bpe")])
def test_the_way_of_cutting_has_a_name_or_a_note(tmp_path: Path, digits: int, pre: str) -> None:
    tokenizer = train_tokenizer(["12 123 1234"], 270, digits)
    notes = write_gguf(tmp_path / "m.gguf", made("llama", tokenizer), tokenizer, "f16", chats=False)
    assert Read(tmp_path / "m.gguf").facts["tokenizer.ggml.pre"] == pre
    assert len(notes) == (digits == 2) and all("'777' where it should be '77|7'" in n for n in notes)


def test_what_llama_cpp_has_no_code_for_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    scaling = RopeScaling(factor=8.0, low=1.0, high=4.0, original=32)
    for model in (made("nanochat", tokenizer), made("qwen3", tokenizer, rope_scaling=scaling)):
        with pytest.raises(UserError, match=r"llama\.cpp"):
            write_gguf(tmp_path / "m.gguf", model, tokenizer, "f16", chats=False)
    assert not list(tmp_path.iterdir())


def llama(file: Path, **how: Any) -> Any:
    # Keys and values in float32 (0), as ours are; its default is f16.
    return pytest.importorskip("llama_cpp").Llama(
        str(file), n_ctx=512, n_threads=1, type_k=0, type_v=0, verbose=False, **how
    )


def spoken(engine: Any, prompt: list[int], new: int) -> list[int]:
    """`new` tokens of llama.cpp's, the likeliest each time."""
    stream = engine.generate(prompt, top_k=1, temp=0.0, repeat_penalty=1.0)
    return [token for token, _ in zip(stream, range(new), strict=False)]


@pytest.mark.parametrize("family", KNOWN)
def test_llama_cpp_goes_on_with_the_same_tokens(tokenizer: Tokenizer, tmp_path: Path, family: str) -> None:
    model = made(family, tokenizer)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, "f32", chats=False)
    engine = llama(tmp_path / "m.gguf")
    seen: set[int] = set()
    for prompt in PROMPTS:
        ids = [tokenizer.eos_id, *tokenizer.encode(prompt)]
        assert engine.tokenize(prompt.encode()) == ids
        wanted = greedy(model, tokenizer, ids, 40)
        assert spoken(engine, ids, len(wanted)) == wanted
        seen |= set(wanted)
    assert len(seen) > 10
    engine.close()


@pytest.mark.parametrize(("type", "same"), [("f32", 464), ("f16", 464), ("q8_0", 150)])
def test_llama_cpp_and_the_recorded_tokens_of_a_real_model(data: Path, tmp_path: Path, type: str, same: int) -> None:
    folder = data / "model/stories260K"
    model, tokenizer = load_model(folder / "stories260K.bin")
    write_gguf(tmp_path / "m.gguf", model, tokenizer, type, chats=False)
    engine = llama(tmp_path / "m.gguf")
    text = tokenizer.decode(spoken(engine, [tokenizer.id_of("<s>")], 200)).strip()
    # Eight bits round the weights of so small a model enough that it takes another turn after 195 characters.
    assert text[:same] == (folder / "expected_greedy_200.txt").read_text().strip()[:same]
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ours-1", "ours-3", "gpt2", "cl100k_base.tiktoken", "stories260K.bin"])
def test_llama_cpp_gives_the_same_ids(data: Path, tmp_path: Path, name: str) -> None:
    if name.startswith("ours"):
        text = " ".join(hard_texts(60)) + " 12 12 123 123 1234 1234"
        tokenizer = train_tokenizer([text], 700, int(name[-1]))
    elif name.endswith(".bin"):
        tokenizer = load_model(data / "model/stories260K" / name)[1]
    else:
        tokenizer = Tokenizer.load(data / "tokenizers" / name)
    model = made("qwen3", tokenizer, layers=1, width=8, heads=1, kv_heads=1, head_dim=8, mlp_width=8)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, "f16", chats=False)
    engine = llama(tmp_path / "m.gguf", vocab_only=True)
    for text in hard_texts(300, highest=0xD800):  # llama.cpp's tables know no letters of later Unicode versions
        assert engine.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text), text
    engine.close()
