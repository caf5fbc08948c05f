"""Muon for the matrices inside the blocks, AdamW for the rest.

Muon (kellerjordan.github.io/posts/muon): the momentum of a matrix is replaced by the nearest orthogonal one, so every
direction in it moves equally far. The orthogonalisation is Polar Express (arXiv 2505.16932): five quintic Newton-Schulz
steps with coefficients made for exactly five, in bfloat16, where they are stable. Matrices of one shape are stacked and
go through it together: a small model has many, and one batched product costs less than many little ones.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.native import muon as kernel
from llmctl.train.fsdp import Shards, across
from llmctl.train.settings import OptimizerSettings

# Table 1 of arXiv 2505.16932 for 5 steps, with the safety factor of 2 % against bfloat16's rounding.
_POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def _in_squares() -> list[tuple[float, float, float]]:
    """Those steps as x <- ((gram + h)^2 + k) x, which takes three plain products and no further pass over memory.

    A step's a + b g + c g^2 is c (g + b / 2c)^2 + a - b^2 / 4c; c goes into a scale t of x at each step, such that the
    last one leaves x at its own scale. (t before the step, h, k) for each.
    """
    found, after = [], 1.0
    for a, b, c in reversed(_POLAR_EXPRESS):
        before = (after * c) ** 0.2
        h = after / before * b / (2 * before**2)
        found.append((before, h, after / before * a - h * h))
        after = before
    return found[::-1]


_STEPS = _in_squares()


def orthogonalize(g: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The nearly orthogonal matrix nearest to each of `g` (..., m, n), as `dtype`: all singular values near 1."""
    tall, x = g.size(-2) > g.size(-1), g.to(dtype)
    if kernel.suits(x):
        return kernel.polynomial(x, _STEPS[0][0], [(h, k) for _, h, k in _STEPS])
    x = x * (_STEPS[0][0] / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7))
    shape, x = x.shape, x.reshape(-1, *x.shape[-2:])
    for _, h, k in _STEPS:
        gram = torch.bmm(x.mT, x) if tall else torch.bmm(x, x.mT)  # the smaller of the two
        gram.diagonal(dim1=-2, dim2=-1).add_(h)
        polynomial = torch.bmm(gram, gram)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(k)
        x = torch.bmm(x, polynomial) if tall else torch.bmm(polynomial, x)
    return x.view(shape)


class Muon:
    """Muon over named matrices; `lr` is given at each step. The state is one momentum a matrix, kept by its name.

    With `shards`, of each matrix this process has some rows.
    """

    def __init__(
        self,
        params: dict[str, Tensor],
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype,
        shards: Shards | None = None,
    ) -> None:
        self.momentum, self.weight_decay, self.dtype, self._parted = momentum, weight_decay, dtype, shards is not None
        stacks: dict[tuple[int, int], list[str]] = defaultdict(list)  # by the whole shape: the same in every process
        for name, p in params.items():
            stacks[(shards.rows(name) if shards else p.shape[0], p.shape[1])].append(name)
        self._shapes = list(stacks)
        self._stacks = [(names, [params[n] for n in names]) for names in stacks.values()]
        self._buffers = [torch.zeros(len(ps), *ps[0].shape, device=ps[0].device) for _, ps in self._stacks]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move every matrix that has a gradient's stack; the rate of tall ones is higher (see below)."""
        for (rows, width), (_, params), buffer in zip(self._shapes, self._stacks, self._buffers, strict=True):
            fused = kernel.fuses(buffer, self.dtype) and all(p.is_contiguous() for p in params)
            update = self._direction(self._ahead([_grad(p) for p in params], buffer, fused), rows)
            # A tall matrix has fewer singular values than rows, so its output would move less; the factor of the
            # published implementation keeps the root mean square of what the layer puts out.
            scale = lr * max(1.0, rows / width) ** 0.5
            keep = 1 - lr * self.weight_decay
            if fused:
                kernel.move(params, update, keep, scale)
                continue
            if self.weight_decay:
                torch._foreach_mul_(params, keep)
            torch._foreach_add_(params, list(update.unbind(0)), alpha=-scale)

    def _ahead(self, grads: list[Tensor], buffer: Tensor, fused: bool) -> Tensor:
        """Let the momenta in `buffer` follow the gradients: what Nesterov looks ahead to, in the type of products."""
        if fused:
            return kernel.follow(grads, buffer, self.momentum)
        momenta = buffer.unbind(0)
        torch._foreach_lerp_(momenta, grads, 1 - self.momentum)
        torch._foreach_lerp_(grads, momenta, self.momentum)
        g = torch.empty_like(buffer, dtype=self.dtype)
        torch._foreach_copy_(g.unbind(0), grads)
        return g

    def _direction(self, g: Tensor, rows: int) -> Tensor:
        """`orthogonalize` the matrices in `g`, whole ones of so many `rows` or this process's parts of them."""
        if self._parted:
            return across(g, rows, lambda whole: orthogonalize(whole, self.dtype))
        return orthogonalize(g, self.dtype)

    def state(self) -> dict[str, Tensor]:
        """The momenta by parameter name."""
        rows = ((names, buffer) for (names, _), buffer in zip(self._stacks, self._buffers, strict=True))
        return {f"{n}.momentum": buffer[i] for names, buffer in rows for i, n in enumerate(names)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the momenta over. KeyError where one is missing."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


class Optimizer:
    """Every trainable weight of `model`, or of the `shards` of one, under Muon or AdamW as `settings` say."""

    def __init__(
        self,
        model: nn.Module,
        settings: OptimizerSettings,
        dtype: torch.dtype = torch.bfloat16,
        shards: Shards | None = None,
    ) -> None:
        self.settings = settings
        weights = shards.local if shards else dict(model.named_parameters())
        named = {n: p for n, p in weights.items() if p.requires_grad}
        matrices = {n: p for n, p in named.items() if is_block_matrix(n, p)}
        rest = {n: p for n, p in named.items() if n not in matrices}
        muon = settings.name == "muon"
        self.params = list(named.values())
        self._muon = Muon(matrices if muon else {}, settings.momentum, settings.weight_decay, dtype, shards)
        groups = _groups(rest if muon else {**matrices, **rest}, settings)
        self._adam_names = [name for group in groups for name in group.pop("names")]
        self._rates = [group["lr"] for group in groups]
        # One pass over the memory instead of a dozen; torch has it for CPU and CUDA.
        fused = bool(self.params) and self.params[0].device.type in ("cpu", "cuda")
        self._adam = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, fused=fused) if groups else None

    def step(self, rate: float) -> None:
        """One update with the learning rates times `rate`; the gradients are used up."""
        self._muon.step(self.settings.matrix_lr * rate)
        if self._adam is not None:
            for group, lr in zip(self._adam.param_groups, self._rates, strict=True):
                group["lr"] = lr * rate
            self._adam.step()
        self.clear()

    def clear(self) -> None:
        """Drop the gradients."""
        for p in self.params:
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything the optimizer remembers, by parameter name."""
        found = self._muon.state()
        for name, p in self._adam_params():
            for key, tensor in self._adam.state.get(p, {}).items():  # type: ignore[union-attr]
                found[f"{name}.{key}"] = tensor
        return found

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` of another run of the same model remembered. KeyError where something is missing."""
        self._muon.load(state)
        for name, p in self._adam_params():
            if f"{name}.step" in state:  # absent where the weight never had a gradient
                keys = ("step", "exp_avg", "exp_avg_sq")
                self._adam.state[p] = {k: state[f"{name}.{k}"].to(p.device).clone() for k in keys}  # type: ignore[union-attr]

    def _adam_params(self) -> list[tuple[str, Tensor]]:
        if self._adam is None:
            return []
        return list(zip(self._adam_names, (p for g in self._adam.param_groups for p in g["params"]), strict=True))


def is_block_matrix(name: str, p: Tensor) -> bool:
    """Whether a weight is a matrix inside a block. Embeddings and heads are tables of vectors: not for Muon."""
    return p.ndim == 2 and "layers." in name


def _groups(params: dict[str, Tensor], settings: OptimizerSettings) -> list[dict[str, Any]]:
    """AdamW's groups: matrices with their decay, then tables and vectors without, each with its rate and its names."""
    own_head = any("lm_head" in name for name in params)

    def kind(name: str) -> tuple[float, float]:
        if is_block_matrix(name, params[name]):
            return settings.lr, settings.weight_decay
        if "lm_head" in name:
            return settings.head_lr or settings.lr, 0.0
        return (settings.embedding_lr if own_head and "embed_tokens" in name else 0.0) or settings.lr, 0.0

    found: dict[tuple[float, float], list[str]] = defaultdict(list)
    for name in params:
        found[kind(name)].append(name)
    return [
        {"names": names, "params": [params[n] for n in names], "lr": lr, "weight_decay": decay}
        for (lr, decay), names in found.items()
    ]


def _grad(p: Tensor) -> Tensor:
    return p.grad if p.grad is not None else torch.zeros_like(p)
