"""The layers of training as kernels, against float64 formulas and the modules they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl.model import fast
from llmctl.model.config import ModelConfig, dial
from llmctl.model.lora import add_adapters
from llmctl.model.transformer import Transformer
from llmctl.native import layers
from llmctl.native.build import library

pytestmark = pytest.mark.skipif(library("layers") is None, reason="no compiler or no AMX: the kernels are off")


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _near(found: Tensor, wanted: Tensor, share: float = 6e-3) -> None:
    """Within the rounding of bfloat16, measured against the largest number there is."""
    assert found.shape == wanted.shape
    assert (found.double() - wanted).abs().max() <= share * wanted.abs().max() + 1e-6


@pytest.mark.parametrize("width", [32, 100, 384])
@pytest.mark.parametrize("gained", [True, False])
def test_sum_and_norm_and_their_gradients(width, gained, threads):
    torch.manual_seed(0)
    x, y = torch.randn(37, width, requires_grad=True), torch.randn(37, width).bfloat16().requires_grad_()
    gain = torch.randn(width, requires_grad=True) if gained else None
    total, out = layers.add_norm(x, y, gain, 1e-6)
    d_total, d_out = torch.randn(37, width), torch.randn(37, width).bfloat16()
    ((total * d_total).sum() + (out.float() * d_out.float()).sum()).backward()

    x64, y64 = x.detach().double().requires_grad_(), y.detach().double().requires_grad_()
    g64 = gain.detach().double().requires_grad_() if gain is not None else torch.ones(width, dtype=torch.float64)
    sum64 = x64 + y64
    normed = sum64 / (sum64.square().mean(-1, keepdim=True) + 1e-6).sqrt() * g64
    ((sum64 * d_total).sum() + (normed * d_out).sum()).backward()
    _near(total, sum64.detach(), 1e-6)
    _near(out, normed.detach())
    _near(x.grad, x64.grad, 1e-5)
    _near(y.grad, y64.grad)
    if gain is not None:
        _near(gain.grad, g64.grad, 1e-5)


@pytest.mark.parametrize("gated", [True, False])
def test_the_mlp_and_its_gradients(gated, threads):
    torch.manual_seed(0)
    shapes = [(96, 64)] * (2 if gated else 1) + [(64, 96)]
    weights = [torch.randn(s).mul(0.2).requires_grad_() for s in shapes]
    x, d_out = torch.randn(50, 64).bfloat16().requires_grad_(), torch.randn(50, 64).bfloat16()
    layers.mlp(x, weights[0] if gated else None, weights[-2], weights[-1]).backward(d_out)

    x64, *w64 = (t.detach().double().requires_grad_() for t in (x, *weights))
    inner = F.silu(x64 @ w64[0].T) * (x64 @ w64[1].T) if gated else F.relu(x64 @ w64[0].T).square()
    (inner @ w64[-1].T).backward(d_out.double())
    for found, wanted in zip((x, *weights), (x64, *w64), strict=True):
        _near(found.grad, wanted.grad, 2e-2)


def _by_hand(x: Tensor, weight: Tensor, gain: Tensor | None, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    heads = (x @ weight.T).view(len(x), -1, 2 * cos.shape[1])
    if eps >= 0:
        heads = heads / (heads.square().mean(-1, keepdim=True) + eps).sqrt()
    heads = heads if gain is None else heads * gain
    a, b = heads.chunk(2, -1)
    rows = torch.arange(len(x)) % len(cos)
    c, s = cos[rows][:, None].double(), sin[rows][:, None].double()
    return torch.cat((a * c - b * s, b * c + a * s), -1).flatten(1)


@pytest.mark.parametrize("eps", [1e-6, -1.0])
@pytest.mark.parametrize("gained", [True, False])
def test_queries_keys_and_values(eps, gained, threads):
    if eps < 0 and gained:
        pytest.skip("a gain belongs to a norm")
    torch.manual_seed(0)
    size, period = 32, 10
    weights = [torch.randn(rows, 48).mul(0.2).requires_grad_() for rows in (4 * size, 2 * size, 2 * size)]
    gains = [torch.randn(size, requires_grad=True) if gained else None for _ in range(2)]
    angles = torch.randn(period, size // 2)
    cos, sin = angles.cos(), angles.sin()
    x = torch.randn(30, 48).bfloat16().requires_grad_()
    made = layers.project(x, tuple(weights), tuple(gains), eps, cos, sin)
    d_made = [torch.randn_like(m) for m in made]
    torch.autograd.backward(made, d_made)

    x64, *w64 = (t.detach().double().requires_grad_() for t in (x, *weights))
    g64 = [None if g is None else g.detach().double().requires_grad_() for g in gains]
    wanted = [_by_hand(x64, w, g, eps, cos, sin) for w, g in zip(w64, g64, strict=False)] + [x64 @ w64[2].T]
    torch.autograd.backward(wanted, [d.double() for d in d_made])
    for found, right in zip(made, wanted, strict=True):
        _near(found.detach(), right.detach(), 1e-2)
    for found, right in zip((x, *weights), (x64, *w64), strict=True):
        _near(found.grad, right.grad, 2e-2)
    for found, right in zip(gains, g64, strict=True):
        assert found is None or right is None or _near(found.grad, right.grad, 2e-2) is None


def _gradients(model: Transformer, ids: Tensor, segments: Tensor | None, how: str) -> list[Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how != "float32"):
        hidden = model(ids, segments=segments).float()
        (hidden * torch.sin(torch.arange(hidden.numel(), dtype=torch.float32)).view_as(hidden)).sum().backward()
    return [hidden.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("family", ["qwen3", "nanochat", "llama"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_model_is_as_near_to_float32_as_under_autocast(family, packed, monkeypatch):
    torch.manual_seed(0)
    model = Transformer(dial(2, 300, 64, width=128, family=family))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    ids = torch.randint(300, (3, 64))
    segments = (torch.arange(64) // 23).expand(3, -1) if packed else None
    used = []
    whole = fast.forward
    monkeypatch.setattr(fast, "forward", lambda *a: used.append(1) or whole(*a))
    exact = _gradients(model, ids, segments, "float32")
    assert not used
    ours = _gradients(model, ids, segments, "autocast")
    assert used
    monkeypatch.setattr(fast, "suits", lambda _: False)
    theirs = _gradients(model, ids, segments, "autocast")
    assert len(exact) == len(ours) == len(theirs)
    for e, o, t in zip(exact, ours, theirs, strict=True):
        assert (o - e).norm() <= 1.25 * (t - e).norm() + 1e-6


def _model(**changes: object) -> Transformer:
    shape = {"vocab_size": 64, "layers": 1, "width": 64, "heads": 2, "kv_heads": 2, "head_dim": 32, "mlp_width": 96}
    return Transformer(ModelConfig(**{**shape, "context": 32, **changes}))  # type: ignore[arg-type]


def test_what_the_kernels_do_not_cover_goes_the_usual_way():
    assert fast.covers(_model())
    assert not fast.covers(_model(family="gpt2"))
    assert not fast.covers(_model(family="qwen2"))  # biases
    assert not fast.covers(_model(head_dim=16))
    assert not fast.covers(_model().bfloat16())
    eighths = _model()
    eighths.layers[0].mlp.up_proj = type("Float8Linear", (torch.nn.Linear,), {})(64, 96, bias=False)
    assert not fast.covers(eighths)
    adapted = _model()
    add_adapters(adapted, 4, 8.0, targets=["o_proj"])
    assert not fast.covers(adapted)
    _gradients(adapted, torch.randint(64, (2, 32)), None, "autocast")
    assert adapted.layers[0].self_attn.o_proj.lora_B.grad is not None


def test_frozen_weights_get_no_gradient_and_the_rest_theirs():
    torch.manual_seed(0)
    model = _model()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.05)
    ids = torch.randint(64, (2, 32))
    _gradients(model, ids, None, "autocast")
    wanted = model.layers[0].input_layernorm.weight.grad.clone()
    for p in model.layers[0].mlp.parameters():
        p.requires_grad_(False)
        p.grad = None
    _gradients(model, ids, None, "autocast")
    assert torch.equal(model.layers[0].input_layernorm.weight.grad, wanted)
    assert all(p.grad is None for p in model.layers[0].mlp.parameters())
