"""The attention of compiled training, against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from llmctl.model import attention
from llmctl.model.config import dial
from llmctl.model.transformer import Transformer


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("t", [2, 6, 64])
def test_output_and_gradients_are_those_of_the_plain_formula(dtype: torch.dtype, error: float, t: int) -> None:
    torch.manual_seed(t)
    q, k, v, d_out = (torch.randn(2, 3, t, 16) for _ in range(4))
    exact = [x.clone().requires_grad_() for x in (q, k, v)]
    scores = exact[0] @ exact[1].mT / 4 + torch.full((t, t), float("-inf")).triu(1)
    plain = scores.softmax(-1) @ exact[2]
    plain.backward(d_out)
    ours = [x.to(dtype).requires_grad_() for x in (q, k, v)]
    out = attention.causal(*ours)
    out.backward(d_out.to(dtype))
    torch.testing.assert_close(out.float(), plain, atol=error, rtol=error)
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, atol=4 * error, rtol=4 * error)


def test_it_is_for_compiled_training_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.randn(1, 2, 8, 4)
    assert not attention.suits(q, q)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert attention.suits(q, q)
    assert not attention.suits(q, q[:, :1]) and not attention.suits(q[:, :, :7], q[:, :, :7])
    with torch.no_grad():
        assert not attention.suits(q, q)


@pytest.mark.slow
def test_a_compiled_model_has_the_gradients_of_a_plain_one() -> None:
    torch.manual_seed(0)
    model = Transformer(dial(2, 64, 32, width=32, head_dim=16))
    ids = torch.randint(64, (3, 32))
    found = []
    for forward in (model, torch.compile(model, dynamic=False)):
        model.zero_grad()
        F.cross_entropy(model.logits(forward(ids)).flatten(0, 1), ids.flatten()).backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-5, rtol=1e-3)
