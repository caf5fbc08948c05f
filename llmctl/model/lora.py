"""Low-rank adaptation (arXiv:2106.09685): a frozen matrix W learns as W + alpha / rank * B A, and is one matrix again
when it is saved.

A is rank x in and begins as `torch.nn.Linear` does, B is out x rank and begins at zero, so training starts from exactly
the model that was given. By default every matrix of the blocks gets an adapter, the MLP's too: attention alone learns
less at the same number of weights (thinkingmachines.ai/blog/lora).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.errors import UserError
from llmctl.model.transformer import Transformer


class LoraLinear(nn.Module):
    """A frozen linear layer and its adapter. x (..., in) to (..., out)."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.base, self.scale, self.dropout = base.requires_grad_(False), alpha / rank, dropout
        like = {"dtype": base.weight.dtype, "device": base.weight.device}
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, **like))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, **like))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """W x + alpha / rank * B A dropout(x)."""
        kept = F.dropout(x, self.dropout, self.training) if self.dropout else x
        return self.base(x) + F.linear(F.linear(kept, self.lora_A), self.lora_B) * self.scale

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The linear layer that gives the same."""
        self.base.weight += (self.lora_B.float() @ self.lora_A.float()).to(self.base.weight.dtype) * self.scale
        return self.base


def add_adapters(
    model: Transformer, rank: int, alpha: float, dropout: float = 0.0, targets: Sequence[str] = (), tables: bool = False
) -> list[str]:
    """Freeze `model` and put an adapter beside each linear layer of its blocks named in `targets` (all, where empty).

    With `tables` the embeddings and the head stay trainable as a whole: tokens that were never seen have rows there
    that no adapter reaches. Fresh numbers come from torch's global generator. Returns the names of the layers.
    UserError where a target is none.
    """
    linear = {n: m for n, m in model.layers.named_modules() if isinstance(m, nn.Linear)}
    known = sorted({n.rpartition(".")[2] for n in linear})
    if unknown := [t for t in targets if t not in known]:
        raise UserError(f"the model has no layer {unknown[0]!r}", "lora.targets", f"it has {', '.join(known)}")
    model.requires_grad_(False)
    if tables:
        model.embed_tokens.requires_grad_(True)
        model.head.requires_grad_(True)
    chosen = {n: m for n, m in linear.items() if not targets or n.rpartition(".")[2] in targets}
    for name, module in chosen.items():
        _put(model.layers, name, LoraLinear(module, rank, alpha, dropout))
    return list(chosen)


def merge_adapters(model: Transformer) -> None:
    """Add every adapter of `model` to its matrix: the plain model again, which computes the same, all trainable."""
    for name, module in list(model.layers.named_modules()):
        if isinstance(module, LoraLinear):
            _put(model.layers, name, module.merged())
    model.requires_grad_(True)


def _put(within: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(within.get_submodule(parent), last, module)
