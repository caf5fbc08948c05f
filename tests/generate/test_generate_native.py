"""The kernel that takes tokens through all layers, against the transformer's own full passes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from llmctl.generate import native, sampling
from llmctl.generate.cache import KVCache
from llmctl.generate.decoder import Decoder
from llmctl.generate.engine import Engine
from llmctl.generate.native import NativeDecoder
from llmctl.generate.prefill import prefill
from llmctl.generate.sampling import Sampling, choose
from llmctl.model.config import ModelConfig
from llmctl.model.families import FAMILIES
from llmctl.model.transformer import Transformer
from llmctl.native import decode

pytestmark = pytest.mark.skipif(not decode.available(), reason="no kernels on this machine")
# Head, width, MLP and vocabulary: whole panels and lines, then none of them whole.
WHOLE, ODD = (16, 64, 96, 128), (12, 42, 50, 117)


def made(family: str, shape: tuple[int, ...] = ODD, **fields: object) -> Transformer:
    torch.manual_seed(3)
    head_dim, width, mlp, vocab = shape
    heads, kv_heads, head_dim = (3, 3, width // 3) if family == "gpt2" else (4, 2, head_dim)
    if family == "gpt2" and width % 3:
        heads = kv_heads = 4
        head_dim = width // 4
    options = {"vocab_size": vocab, "width": width, "mlp_width": mlp, "heads": heads, "kv_heads": kv_heads}
    config = ModelConfig(layers=2, head_dim=head_dim, context=400, family=family, **{**options, **fields})  # type: ignore[arg-type]
    model = Transformer(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.normal_(0, p.shape[1] ** -0.5) if p.dim() > 1 else p.add_(torch.randn_like(p), alpha=0.2)
    return model


def texts(rows: int, vocab: int, most: int = 40) -> list[list[int]]:
    """Of ragged lengths, the first of one token."""
    generator = torch.Generator().manual_seed(rows)
    return [torch.randint(vocab, (1 + i * 7 % most,), generator=generator).tolist() for i in range(rows)]


@torch.inference_mode()
def errors(exact: Transformer, dtype: torch.dtype, rows: int, steps: int = 3) -> float:
    """The largest relative error of a row's logits, over some steps behind ragged prompts."""
    asked = texts(rows, exact.config.vocab_size)
    model = Transformer(exact.config).eval().requires_grad_(False)
    model.load_state_dict(exact.state_dict())
    model = model.to(dtype)
    assert native.covers(model)
    cache, _ = prefill(model, asked)
    decoder, worst = NativeDecoder(model), 0.0
    for step in range(steps):
        ids = torch.arange(rows) * 3 % exact.config.vocab_size + step
        found = decoder.step(ids, cache)
        asked = [[*a, int(i)] for a, i in zip(asked, ids, strict=True)]
        for row, text in zip(found, asked, strict=True):
            wanted = exact.logits(exact(torch.tensor([text]))[0, -1])
            worst = max(worst, float((row - wanted).norm() / wanted.norm()))
    return worst


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [WHOLE, ODD])
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_every_family_in_fp32(family: str, shape: tuple[int, ...], rows: int) -> None:
    assert errors(made(family, shape), torch.float32, rows) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [WHOLE, ODD])
@pytest.mark.parametrize("rows", [2, 7])
def test_every_family_in_bf16(family: str, shape: tuple[int, ...], rows: int) -> None:
    assert errors(made(family, shape), torch.bfloat16, rows) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [4, 5, 8, 16, 17, 31, 32, 33, 64, 65])
def test_numbers_of_rows(dtype: torch.dtype, rows: int) -> None:
    assert errors(made("qwen3"), dtype, rows, 1) < (1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("head_dim", [8, 32, 48, 64, 80, 128, 200])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_heads_of_all_sizes(head_dim: int, kv_heads: int) -> None:
    model = made("qwen3", (head_dim, 64, 96, 128), kv_heads=kv_heads)
    assert errors(model, torch.float32, 3, 1) < 1e-5 and errors(model, torch.bfloat16, 3, 1) < 0.05


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("qwen3", {"attention_bias": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_embeddings": False}),
        ("nanochat", {"softcap": 2.0, "tie_embeddings": False}),
    ],
)
def test_what_single_models_have(family: str, fields: dict[str, object]) -> None:
    model = made(family, **fields)
    assert errors(model, torch.float32, 3) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_nothing(dtype: torch.dtype) -> None:
    model, found, before = made("qwen3", WHOLE).to(dtype), [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        cache, _ = prefill(model, texts(9, 128))
        found.append((NativeDecoder(model).step(torch.arange(9), cache), cache))
        torch.set_num_threads(before)
    for (logits, cache), (others, other) in pairwise(found):
        assert torch.equal(logits, others)
        assert all(torch.equal(a, b) for a, b in zip(cache.keys, other.keys, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_is_what_the_modules_make(dtype: torch.dtype) -> None:
    model = made("qwen3").to(dtype)
    (mine, _), (theirs, _) = (prefill(model, texts(5, 117)) for _ in range(2))
    ids = torch.arange(5)
    with torch.inference_mode():
        NativeDecoder(model).step(ids, mine)
        model(ids[:, None], positions=theirs.extend(1), cache=theirs)
    room = 1e-5 if dtype == torch.float32 else 0.05
    for a, b in zip(mine.keys + mine.values, theirs.keys + theirs.values, strict=True):
        new, wanted = a[:, :, mine.end - 1].float(), b[:, :, mine.end - 1].float()
        assert (new - wanted).norm() <= room * wanted.norm()


@torch.inference_mode()
def test_many_tokens_of_a_row_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = made("qwen3"), texts(6, 117)
    wanted = torch.stack([model.logits(model(torch.tensor([a]))[0, -1]) for a in asked])
    for together in (512, 5):  # and in several passes
        monkeypatch.setattr(native, "TOGETHER", together)
        config, width = model.config, max(map(len, asked))
        begins = torch.tensor([width - len(a) for a in asked])
        cache = KVCache(config.layers, config.kv_heads, config.head_dim, begins, torch.float32, width)
        cache.advance(width)
        ids = torch.tensor([i for a in asked for i in a])
        rows = torch.tensor([r for r, a in enumerate(asked) for _ in a])
        at = torch.tensor([width - len(a) + i for a in asked for i in range(len(a))])
        last = torch.tensor([len(a) for a in asked]).cumsum(0) - 1
        found = NativeDecoder(model).run(ids, rows, at, cache, last)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_without_it_the_modules_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("qwen3")
    sampling = Sampling(max_new_tokens=12, temperature=0, stop_ids=())

    class Plain:
        def token_bytes(self, token: int) -> bytes:
            return b"x"

        specials: dict[str, int] = {}
        eos_id = 0

        def decode(self, ids: list[int]) -> str:
            return "x" * len(ids)

    asked = texts(5, 117)
    with_it = Engine(model, Plain(), "fp32").generate(asked, sampling)
    monkeypatch.setattr(native, "covers", lambda model: False)
    without = Engine(model, Plain(), "fp32").generate(asked, sampling)
    assert [g[0].ids for g in with_it] == [g[0].ids for g in without]


def test_weights_are_taken_when_it_is_made() -> None:
    model = made("qwen3").to(torch.bfloat16)
    cache, _ = prefill(model, texts(3, 117))
    before = Decoder(model).step(torch.arange(3), cache)
    model.layers[1].mlp.up_proj.weight.data.mul_(-1)
    cache, _ = prefill(model, texts(3, 117))
    after = Decoder(model).step(torch.arange(3), cache)
    fresh = NativeDecoder(model).step(torch.arange(3), prefill(model, texts(3, 117))[0])
    assert not torch.equal(before, after) and torch.equal(after, fresh)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0},
        {"temperature": 0.6},
        {"top_k": 7},
        {"top_p": 0.6},
        {"top_p": 0.999},
        {"min_p": 0.2},
        {"temperature": 1.4, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
    ],
)
@pytest.mark.parametrize(("rows", "vocab"), [(1, 1), (3, 64), (40, 1171)])
def test_draws_are_those_of_pytorch(
    settings: dict[str, float], rows: int, vocab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(rows)
    how = Sampling(**settings)  # type: ignore[arg-type]
    for spread in (0.1, 2.0, 9.0):
        logits = torch.randn(rows, vocab, generator=generator) * spread
        noise = torch.rand(rows, generator=generator, dtype=torch.float64)
        ids, logprobs = choose(logits, how, noise)
        with monkeypatch.context() as patch:
            patch.setattr(sampling, "_native", lambda *_: False)
            wanted, scores = choose(logits, how, noise)
        assert torch.equal(ids, wanted)
        torch.testing.assert_close(logprobs, scores, atol=1e-5, rtol=1e-5)


def test_a_diverged_model_does_not_leave_the_vocabulary() -> None:
    for logits in (torch.full((2, 70), float("nan")), torch.full((2, 70), float("-inf"))):
        for how in (Sampling(), Sampling(temperature=0), Sampling(top_k=3, top_p=0.5)):
            ids, _ = choose(logits, how, torch.tensor([0.3, 0.9], dtype=torch.float64))
            assert ((ids >= 0) & (ids < 70)).all()
