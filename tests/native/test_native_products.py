"""The kernels of the head, the matrices' gradients and Muon, against plain formulas."""

from __future__ import annotations

import pytest
import torch

from llmctl.native import head, muon
from llmctl.native.build import library
from llmctl.native.gradient import matrix_gradient
from llmctl.train import optimizer
from llmctl.train.loss import softmax_loss

pytestmark = pytest.mark.skipif(library("gradient") is None, reason="no compiler or no AMX: the kernels are off")


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "tokens, rows, columns", [(1, 1, 1), (31, 33, 15), (300, 100, 70), (700, 64, 1100), (512, 600, 32)]
)
def test_the_gradient_of_a_matrix(tokens, rows, columns, threads):
    torch.manual_seed(0)
    d_out, x = torch.randn(tokens, rows).bfloat16(), torch.randn(tokens, columns).bfloat16()
    wanted = d_out.double().T @ x.double()
    found = matrix_gradient(d_out, x)
    assert (found - wanted).abs().max() < 1e-4 * tokens**0.5
    again = matrix_gradient(d_out, x, total=found.clone())
    assert (again - 2 * wanted).abs().max() < 3e-4 * tokens**0.5


def test_the_gradient_takes_parts_of_wider_matrices_and_no_tokens_at_all(threads):
    torch.manual_seed(0)
    wide = torch.randn(90, 200).bfloat16()
    found = matrix_gradient(wide[:, 10:70], wide[:, 100:])
    assert torch.allclose(found, wide[:, 10:70].float().T @ wide[:, 100:].float(), atol=1e-3)
    assert torch.equal(matrix_gradient(wide[:0, :4], wide[:0, :3]), torch.zeros(4, 3))
    kept = torch.ones(4, 3)
    assert torch.equal(matrix_gradient(wide[:0, :4], wide[:0, :3], total=kept), torch.ones(4, 3))


def test_the_number_of_threads_does_not_change_a_bit():
    torch.manual_seed(0)
    d_out, x, g = torch.randn(999, 300).bfloat16(), torch.randn(999, 200).bfloat16(), torch.randn(4, 96, 160).bfloat16()
    before, made = torch.get_num_threads(), []
    for n in (1, 2):
        torch.set_num_threads(n)
        made.append((matrix_gradient(d_out, x), optimizer.orthogonalize(g)))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


@pytest.mark.parametrize("rows, vocabulary", [(1, 1), (7, 50), (33, 5003)])
@pytest.mark.parametrize("cap", [0.0, 15.0])
def test_softmax_and_its_gradient(rows, vocabulary, cap, threads):
    torch.manual_seed(0)
    logits = (torch.randn(rows, vocabulary) * 8).bfloat16()
    targets, weights = torch.randint(vocabulary, (rows,)), torch.rand(rows)
    mine, theirs = logits.clone(), logits.clone()
    loss = head.softmax_loss(mine, targets, weights, cap)
    wanted = softmax_loss(theirs, targets, weights, cap)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5, abs=1e-6)
    assert (mine.float() - theirs.float()).abs().max() <= 2**-8 * theirs.float().abs().max()


def test_softmax_of_extreme_logits_is_finite():
    logits = torch.tensor([[3e38, -3e38, 0.0], [-3e38, -3e38, -3e38]]).bfloat16()
    loss = head.softmax_loss(logits, torch.tensor([0, 2]), torch.ones(2), 0.0)
    assert loss.item() == pytest.approx(torch.log(torch.tensor(3.0)).item(), rel=1e-3)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 40, 100), (5, 100, 40), (2, 32, 320)])
def test_muon_makes_orthogonal_matrices(shape, threads):
    torch.manual_seed(0)
    g = torch.randn(shape).bfloat16()
    assert muon.suits(g)
    found = optimizer.orthogonalize(g).float()
    assert torch.linalg.svdvals(found).median() == pytest.approx(1.0, abs=0.15)
    u, _, v = torch.linalg.svd(g.float(), full_matrices=False)
    assert (found - u @ v).norm() / (u @ v).norm() < 0.25


def test_muon_with_and_without_the_kernel(monkeypatch):
    torch.manual_seed(0)
    g = torch.randn(4, 96, 200).bfloat16()
    kept = g.clone()
    mine = optimizer.orthogonalize(g).float()
    assert torch.equal(g, kept), "the gradient itself is left alone"
    monkeypatch.setattr(muon, "suits", lambda _: False)
    theirs, exact = optimizer.orthogonalize(g).float(), optimizer.orthogonalize(g.double(), torch.float64)
    assert (mine - exact).norm() <= 1.2 * (theirs - exact).norm()


def test_a_gradient_of_zeros_gives_no_direction():
    assert torch.equal(optimizer.orthogonalize(torch.zeros(2, 64, 64).bfloat16()).float(), torch.zeros(2, 64, 64))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_step_of_muon_with_and_without_its_passes_over_memory(decay, monkeypatch, threads):
    def steps() -> list[torch.Tensor]:
        torch.manual_seed(0)
        weights = {f"layers.{i}": torch.nn.Parameter(torch.randn(48, 33)) for i in range(3)}
        muon_ = optimizer.Muon(weights, 0.9, decay, torch.bfloat16)
        for _ in range(3):
            for p in weights.values():
                p.grad = torch.randn(48, 33)
            muon_.step(0.1)
        return [p.detach().clone() for p in weights.values()] + list(muon_.state().values())

    mine = steps()
    monkeypatch.setattr(muon, "fuses", lambda *_: False)
    for a, b in zip(mine, steps(), strict=True):
        assert (a - b).abs().max() < 0.02 * b.abs().max()
