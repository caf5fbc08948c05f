"""The attention kernels against the plain formula in float64 and against PyTorch's own in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl.model import attention
from llmctl.model.attention import Documents, segment_mask
from llmctl.model.config import dial
from llmctl.model.transformer import Transformer
from llmctl.native import attention as native

pytestmark = pytest.mark.skipif(not native.available(), reason="no AMX, or no compiler")

SHAPES = [  # rows, heads, key/value heads, tokens, head_dim
    (2, 2, 2, 1, 64),
    (2, 3, 1, 7, 32),
    (1, 2, 2, 31, 128),
    (2, 4, 2, 64, 96),
    (3, 2, 1, 100, 64),
    (2, 3, 3, 256, 64),
    (1, 4, 2, 300, 32),
    (1, 2, 1, 1024, 64),
]


def tensors(shape: tuple[int, ...], scale: float = 1.0) -> list[Tensor]:
    """Queries, keys, values and the output's gradient, laid out as the model does it."""
    rows, heads, kv_heads, tokens, size = shape
    torch.manual_seed(tokens + size)
    made = [torch.randn(rows, tokens, n, size) for n in (heads, kv_heads, kv_heads, heads)]
    made[0] *= scale
    return [x.bfloat16().transpose(1, 2) for x in made]


def documents(rows: int, tokens: int, each: int) -> Tensor:
    """Runs of random lengths, `each` on average, other ones in each row."""
    return (torch.rand(rows, tokens) < 1 / each).long().cumsum(1)


def plain(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, float("-inf"))
    return scores.softmax(-1) @ v


def results(function, q: Tensor, k: Tensor, v: Tensor, d_out: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """The output and the three gradients."""
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    out = function(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, d_out.to(out.dtype))]


def errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    """Relative, but to a hundredth where a gradient is nothing: a token that sees only itself has no choice."""
    pairs = zip(found, exact, strict=True)
    return [float((a.double() - b).norm() / b.norm().clamp_min(0.01 * b.numel() ** 0.5)) for a, b in pairs]


def compare(shape: tuple[int, ...], segments: Tensor | None, scale: float = 1.0) -> None:
    """Ours near float64, and no further from it than half as much again as PyTorch's."""
    q, k, v, d_out = tensors(shape, scale)
    seen = segment_mask(torch.zeros(1, shape[3]) if segments is None else segments)
    exact = results(lambda *x: plain(*x, seen), q.double(), k.double(), v.double(), d_out)
    theirs = results(lambda *x: F.scaled_dot_product_attention(*x, attn_mask=seen, enable_gqa=True), q, k, v, d_out)
    ours = results(lambda *x: native.causal(*x, segments), q, k, v, d_out)
    for name, mine, other in zip(("out", "q", "k", "v"), errors(ours, exact), errors(theirs, exact), strict=True):
        assert mine <= max(1.5 * other, 4e-3), (name, mine, other)
        assert mine < 1e-2, (name, mine)


@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_those_of_the_plain_formula(shape: tuple[int, ...]) -> None:
    compare(shape, None)


@pytest.mark.parametrize("each", [1, 5, 40, 200])
@pytest.mark.parametrize("shape", SHAPES[3:])
def test_documents_see_only_themselves(shape: tuple[int, ...], each: int) -> None:
    compare(shape, documents(shape[0], shape[3], each))


@pytest.mark.parametrize("scale", [1e-3, 8.0])
def test_flat_and_steep_weights(scale: float) -> None:
    compare((2, 2, 2, 300, 64), documents(2, 300, 100), scale)


def test_scores_of_many_thousands_give_the_value_at_the_highest() -> None:
    q, k, v, d_out = tensors((1, 2, 2, 600, 64), 1e4)
    found = results(native.causal, q, k, v, d_out)
    assert all(x.isfinite().all() for x in found)
    exact = plain(q.double(), k.double(), v.double(), segment_mask(torch.zeros(1, 600)))
    assert errors(found[:1], [exact])[0] < 1e-2


def test_what_is_hidden_changes_no_bit() -> None:
    q, k, v, d_out = tensors((1, 2, 2, 300, 64))
    segments = torch.zeros(1, 300, dtype=torch.long)
    segments[:, 90:170], segments[:, 170:] = 1, 2
    before = results(lambda *x: native.causal(*x, segments), q, k, v, d_out)
    others = [x.clone() for x in (q, k, v)]
    for x in others:
        x[:, :, :90], x[:, :, 170:] = 3.0, -7.0
    after = results(lambda *x: native.causal(*x, segments), *others, d_out)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one[:, :, 90:170], other[:, :, 90:170])
    others[1][:, :, 150:170] = 5.0
    later = native.causal(*others, segments)
    assert torch.equal(later[:, :, 90:150], after[0][:, :, 90:150])
    assert not torch.equal(later[:, :, 150:170], after[0][:, :, 150:170])


def test_a_row_is_computed_alike_whatever_the_documents_are_called() -> None:
    q, k, v, d_out = tensors((2, 2, 1, 130, 32))
    segments = documents(2, 130, 30)
    ours = results(lambda *x: native.causal(*x, segments), q, k, v, d_out)
    same = results(lambda *x: native.causal(*x, (segments * 7 + 3).int()), q, k, v, d_out)
    assert all(map(torch.equal, ours, same))
    one = results(lambda *x: native.causal(*x, torch.zeros_like(segments)), q, k, v, d_out)
    assert all(map(torch.equal, one, results(native.causal, q, k, v, d_out)))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", [(2, 4, 2, 300, 64), (1, 1, 1, 100, 32)])
def test_repeating_it_and_other_numbers_of_threads_give_the_same_bits(shape: tuple[int, ...]) -> None:
    segments, found = documents(shape[0], shape[3], 50), []
    for threads in (1, 2, 2, 1):
        torch.set_num_threads(threads)
        found.append(results(lambda *x: native.causal(*x, segments), *tensors(shape)))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_any_layout_in_memory_and_the_models_own_without_a_copy() -> None:
    laid = tensors((2, 4, 2, 70, 64))
    dense = [x.contiguous() for x in laid]
    turned = [x.mT.contiguous().mT for x in laid]
    expected = results(native.causal, *laid)
    for other in (dense, turned):
        assert all(map(torch.equal, expected, results(native.causal, *other)))
    assert expected[0].transpose(1, 2).is_contiguous()


def test_it_is_for_bfloat16_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert all(native.covers(cpu, torch.bfloat16, size) for size in (32, 64, 96, 128))
    assert not any(native.covers(cpu, torch.bfloat16, size) for size in (0, 16, 80, 160))
    assert not native.covers(cpu, torch.float32, 64) and not native.covers(torch.device("cuda"), torch.bfloat16, 64)
    segments = documents(1, 40, 10)
    assert isinstance(attention.document_mask(segments, torch.bfloat16, 64), Documents)
    assert torch.equal(attention.document_mask(segments, torch.float32, 64), segment_mask(segments))  # type: ignore[arg-type]
    monkeypatch.setattr(native, "available", lambda: False)
    assert torch.equal(attention.document_mask(segments, torch.bfloat16, 64), segment_mask(segments))  # type: ignore[arg-type]


def test_documents_are_kept_apart_where_the_kernel_is_not_taken() -> None:
    q, k, v, _ = (x.float() for x in tensors((2, 2, 1, 60, 16)))
    segments = documents(2, 60, 20)
    exact = plain(q.double(), k.double(), v.double(), segment_mask(segments))
    torch.testing.assert_close(attention.attend(q, k, v, Documents(segments)).double(), exact, atol=1e-5, rtol=1e-5)


def small_model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(dial(2, 64, 128, width=64, head_dim=32))
    for p in model.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)  # what begins at zero would hide the attention
    return model


def gradients(forward: object, ids: Tensor, **options: Tensor) -> list[Tensor]:
    assert callable(forward)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = forward(ids, **options).float()
    model = getattr(forward, "_orig_mod", forward)
    assert isinstance(model, Transformer)
    weights = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad((hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum(), weights)
    return [hidden.detach(), *found]


def test_a_packed_row_learns_what_its_documents_do_alone() -> None:
    model, ids = small_model(), torch.randint(64, (1, 100))
    lengths = [45, 23, 32]
    segments = torch.tensor([n for n, size in enumerate(lengths) for _ in range(size)])[None]
    positions = torch.cat([torch.arange(size) for size in lengths])[None]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        packed = model(ids, positions=positions, segments=segments).float()
        alone = torch.cat([model(part).float() for part in ids.split(lengths, 1)], 1)
    assert float((packed - alone).norm() / alone.norm()) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("documented", [False, True])
def test_a_compiled_graph_holds_the_kernel_whole(documented: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    true_call = native.call
    monkeypatch.setattr(native, "call", lambda f, *rest: (called.append(f.__name__), true_call(f, *rest)))
    segments = documents(2, 100, 30) if documented else None

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention.attend(q * 1, k * 1, v * 1, None if segments is None else Documents(segments))

    inputs = tensors((2, 4, 2, 100, 32))
    eager, compiled = (results(f, *inputs) for f in (ours, torch.compile(ours, fullgraph=True)))
    assert called == ["attention", "attention_backward"] * 2
    assert all(map(torch.equal, eager, compiled))


@pytest.mark.slow
def test_a_compiled_model_has_the_gradients_of_a_plain_one() -> None:
    model, ids, segments = small_model(), torch.randint(64, (2, 100)), documents(2, 100, 30)
    exact = gradients(model.double(), ids, segments=segments)  # autocast leaves float64 alone
    model.float()
    for forward in (model, torch.compile(model, dynamic=False, fullgraph=True)):
        assert max(errors(gradients(forward, ids, segments=segments), [x.double() for x in exact])) < 4e-2
