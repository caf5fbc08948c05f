"""A little language model with the interface of the real one, small enough to train in a blink."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from llmctl.recipe.settings import StageSettings
from llmctl.train.batch import Batch

VOCAB, WIDTH = 32, 16


class TinyModel(nn.Module):
    """Running means of embeddings within segments: what a position sees is all that came before it."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.position = nn.Embedding(256, WIDTH)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(WIDTH, 2 * WIDTH), "down": nn.Linear(2 * WIDTH, WIDTH)}) for _ in range(2)
        )
        self.dropout = nn.Dropout(0.1)

    def forward(self, ids: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        t = ids.shape[1]
        positions = torch.arange(t).expand_as(ids) if positions is None else positions
        segments = torch.zeros_like(ids) if segments is None else segments
        x = self.embed(ids) + self.position(positions)
        sees = (segments[:, :, None] == segments[:, None, :]) & torch.ones(t, t).tril().bool()
        x = (sees.float() / sees.sum(-1, keepdim=True)) @ x
        for layer in self.layers:
            x = x + self.dropout(layer["down"](torch.relu(layer["up"](x))))
        return x

    @property
    def head(self) -> Tensor:
        return self.embed.weight

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.embed.weight.T


class RandomTokens:
    """`micro` batches a step of patterned tokens, by step."""

    def __init__(self, rows: int = 4, length: int = 12, micro: int = 2) -> None:
        self.rows, self.length, self.micro = rows, length, micro

    def batches(self, step: int) -> list[Batch]:
        g = torch.Generator().manual_seed(step)
        ids = torch.randint(0, VOCAB // 2, (self.rows, self.length + 1), generator=g).cumsum(1) % VOCAB
        weights = (torch.rand(self.rows, self.length, generator=g) < 0.7).float()
        made = Batch(ids[:, :-1], ids[:, 1:], weights)
        cut = [slice(i * self.rows // self.micro, (i + 1) * self.rows // self.micro) for i in range(self.micro)]
        return [Batch(made.ids[c], made.targets[c], made.weights[c]) for c in cut]


class MadeUp(StageSettings):
    """Settings of a stage that only the tests have."""

    stage: ClassVar[str] = "pretrain"
    makes: ClassVar[str] = "model"
    out: str = "tiny"
