"""What each of torchrun's processes checks for tests/train/test_train_fsdp.py."""

from __future__ import annotations

import torch
from torch import nn

from llmctl.model.config import dial
from llmctl.model.transformer import Transformer
from llmctl.train import distributed
from llmctl.train.batch import Batch
from llmctl.train.fsdp import Shards, across, rows_of_each, twin
from llmctl.train.loss import lm_loss
from llmctl.train.optimizer import Optimizer, orthogonalize
from llmctl.train.settings import OptimizerSettings


def mine(full: torch.Tensor, dim: int) -> torch.Tensor:
    parts = full.chunk(distributed.size(), dim)
    return parts[distributed.rank()] if distributed.rank() < len(parts) else full.narrow(dim, 0, 0)


def matrices_are_made_whole() -> None:
    """Any number of matrices and rows, also fewer than there are processes."""
    for count, rows, width in ((4, 8, 5), (1, 7, 9), (5, 2, 3), (2, 1, 4)):
        g = torch.randn(count, rows, width, generator=torch.Generator().manual_seed(1))
        found = across(mine(g, 1), rows, lambda whole: orthogonalize(whole, torch.float32))
        torch.testing.assert_close(found, mine(orthogonalize(g, torch.float32), 1), rtol=1e-4, atol=1e-5)


def steps_are_those_of_the_plain_model(precision: torch.dtype) -> None:
    """Three updates; in between the plain model is there, and a state goes out and comes back."""
    torch.manual_seed(0)
    model = Transformer(dial(2, 50, 16, width=32, head_dim=16))
    plain = Transformer(model.config)
    plain.load_state_dict(model.state_dict())
    settings = OptimizerSettings()
    forward = twin(model)
    shards = Shards(model, forward, precision)
    assert all(p.is_meta for p in model.parameters())
    held = sum(p.numel() for p in shards.local.values())
    assert held < 0.6 * sum(p.numel() for p in plain.parameters()), "each process holds its part only"
    ours, theirs = Optimizer(model, settings, precision, shards), Optimizer(plain, settings, precision)
    for step in range(3):
        ids = torch.randint(50, (distributed.size(), 17), generator=torch.Generator().manual_seed(step))
        batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.ones(len(ids), 16))
        for m, b in ((forward, distributed.part(batch)), (plain, batch)):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                lm_loss(m, b).total.backward()
        shards.take_gradients()
        if step == 0 or precision == torch.float32:  # later Muon has made a tenth of the last bit of bfloat16
            compare_gradients(shards, plain, 1e-2)
        ours.step(1.0)
        theirs.step(1.0)
        ours.load(shards.cut_state(everywhere(shards.gather_state(ours.state()))))
        with shards.whole() as filled:
            assert filled is model
            if precision == torch.float32:
                for a, b in zip(filled.parameters(), plain.parameters(), strict=True):
                    torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)
        assert all(p.is_meta for p in model.parameters())
    gathered, wanted = shards.gather_state(ours.state()), theirs.state()
    assert distributed.rank() or {k: t.shape for k, t in gathered.items()} == {k: t.shape for k, t in wanted.items()}


def compare_gradients(shards: Shards, plain: nn.Module, error: float) -> None:
    for name, p in plain.named_parameters():
        grad = shards.local[name].grad
        assert grad is not None and p.grad is not None, name
        assert (shards.gather(grad, p.shape) - p.grad).norm() <= error * p.grad.norm(), name


def everywhere(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What process 0 has, in all, as after reading its file."""
    told = [state]
    torch.distributed.broadcast_object_list(told)
    return told[0]


if __name__ == "__main__":
    distributed.join()
    assert sum(rows_of_each(7)) == 7
    matrices_are_made_whole()
    for kind in (torch.float32, torch.bfloat16):
        steps_are_those_of_the_plain_model(kind)
    distributed.leave()
