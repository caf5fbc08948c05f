"""Products in 8 bits: as exact as the format allows, forward and backward, and refused where there are none."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from llmctl.errors import UserError
from llmctl.model.config import dial
from llmctl.model.transformer import Transformer
from llmctl.train import fp8
from llmctl.train.batch import Batch
from llmctl.train.fsdp import twin
from llmctl.train.loss import lm_loss

FORMATS = [(torch.float8_e4m3fn, 3, 448.0), (torch.float8_e5m2, 2, 57344.0)]


@pytest.mark.parametrize(("dtype", "mantissa", "most"), FORMATS)
def test_each_entry_is_off_by_half_a_step_of_the_format_at_most(dtype: torch.dtype, mantissa: int, most: float) -> None:
    x = torch.randn(200, 300) * 1e-3
    q, scale = fp8.quantized(x, dtype)
    assert q.dtype == dtype and float(q.float().abs().max()) == most
    back = q.float() * scale
    normal = x.abs() > scale * 2.0 ** (-6 if mantissa == 3 else -14)  # below, the steps of the format are all equal
    assert normal.float().mean() > 0.9
    assert float(((back - x).abs() / x.abs())[normal].max()) <= 2.0 ** -(mantissa + 1) * 1.0001


def test_nothing_huge_and_nan_come_back_as_they_are() -> None:
    for x in (torch.zeros(4, 4), torch.full((4, 4), 1e38)):
        q, scale = fp8.quantized(x, torch.float8_e4m3fn)
        torch.testing.assert_close(q.float() * scale, x, rtol=1e-6, atol=0)
    for bad in (math.nan, math.inf):  # the loop leaves out a step whose gradient is not finite: it has to see it
        q, scale = fp8.quantized(torch.tensor([bad, 1.0]), torch.float8_e5m2)
        assert not bool((q.float() * scale).isfinite().all())


def test_forward_and_both_gradients_are_those_of_the_dequantized_matrices() -> None:
    """The layout and the scales of the three products, against ones written out in float32."""
    torch.manual_seed(0)
    layer, exact = nn.Linear(64, 48), nn.Linear(64, 48)
    exact.load_state_dict(layer.state_dict())
    layer.__class__ = fp8.Float8Linear
    x = torch.randn(2, 16, 64, requires_grad=True)
    y, wanted = layer(x), exact(x)
    d_y = torch.randn_like(wanted)
    (d_x,) = torch.autograd.grad(y, x, d_y.bfloat16(), retain_graph=True)
    (d_w,) = torch.autograd.grad(y, layer.weight, d_y.bfloat16())

    def eight(t: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        q, scale = fp8.quantized(t.detach().bfloat16() if t is not layer.weight else t.detach(), dtype)
        return q.float() * scale

    x8, w8, d8 = eight(x, FORMATS[0][0]), eight(layer.weight, FORMATS[0][0]), eight(d_y, FORMATS[1][0])
    rounding = {"rtol": 2**-7, "atol": 0.02}  # of bfloat16, in which the products come out
    torch.testing.assert_close(y.float(), x8 @ w8.T + exact.bias, **rounding)
    torch.testing.assert_close(d_x, d8 @ w8, **rounding)
    torch.testing.assert_close(d_w, torch.einsum("btn,btk->nk", d8, x8), **rounding)
    # And near the exact ones: errors of 2**-4 and 2**-3 an entry at most, a third of that on the average.
    for found, right in ((y.float(), wanted), (d_x, d_y @ exact.weight), (d_w, torch.einsum("btn,btk->nk", d_y, x))):
        assert float(((found - right).norm() / right.norm()).detach()) < 0.08


def test_a_model_keeps_its_weights_head_and_loss() -> None:
    torch.manual_seed(0)
    model = Transformer(dial(2, 128, 32, width=64, head_dim=32))
    for p in model.parameters():  # so that no block is the identity
        if p.dim() == 2:
            nn.init.normal_(p, std=0.1)
    low = twin(model)
    fp8.use_fp8(low)
    kinds = {name: type(m) for name, m in low.named_modules() if isinstance(m, nn.Linear)}
    assert kinds and all((kind is fp8.Float8Linear) == ("layers." in name) for name, kind in kinds.items())
    assert not any(isinstance(m, fp8.Float8Linear) for m in model.modules())
    assert all(a is b for a, b in zip(model.parameters(), low.parameters(), strict=True))
    ids = torch.randint(128, (2, 33))
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.ones(2, 32))
    grads = []
    losses = []
    for m in (model, low):
        loss = lm_loss(m, batch)
        grads.append(torch.autograd.grad(loss.total, list(model.parameters())))
        losses.append(float(loss.total.detach()) / 64)
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]
    a, b = (torch.cat([g.flatten() for g in gs]) for gs in grads)
    assert float(torch.nn.functional.cosine_similarity(a, b, dim=0)) > 0.97


def test_sizes_that_the_kernels_do_not_take_are_multiplied_as_before() -> None:
    model = nn.Module()
    model.layers = nn.ModuleList([nn.ModuleDict({"odd": nn.Linear(24, 16), "even": nn.Linear(32, 16)})])
    fp8.use_fp8(model)
    odd, even = model.layers[0]["odd"], model.layers[0]["even"]
    assert type(odd) is nn.Linear and type(even) is fp8.Float8Linear
    x = torch.randn(15, 32)
    assert torch.equal(even(x), nn.functional.linear(x, even.weight, even.bias))


def test_it_is_one_graph() -> None:
    layer = nn.Linear(32, 16)
    layer.__class__ = fp8.Float8Linear
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(16, 32)
    compiled(x).float().sum().backward()
    got = layer.weight.grad.clone()
    layer.weight.grad = None
    layer(x).float().sum().backward()
    torch.testing.assert_close(got, layer.weight.grad)


def test_a_machine_without_such_products_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"compute capability 8.9 .*no GPU"):
        fp8.check_fp8(torch.device("cpu"))
