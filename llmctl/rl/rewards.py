"""What a reply earns: by rule (is it right, has it the form), by a reward model, or by both, weighted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from llmctl.errors import UserError
from llmctl.generate.engine import Sample
from llmctl.model.folder import load_reward_model
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import RewardModel
from llmctl.rl.config import RewardSettings
from llmctl.train.device import autocast
from llmctl.verify import Item, check


@dataclass
class Rollout:
    """One reply to one problem, and what it earned. `total` is NaN where it could not be scored."""

    item: Item
    prompt: list[int]
    sample: Sample
    correct: bool = False
    formatted: bool = False
    parts: dict[str, float] = field(default_factory=dict)  # the unweighted components by name
    total: float = 0.0

    @property
    def truncated(self) -> bool:
        """Whether it was cut before it came to an end."""
        return self.sample.finish == "length"


class Rewards:
    """Scores roll-outs. `learned` is the reward model, where there is one."""

    def __init__(self, settings: RewardSettings, learned: RewardModel | None = None, batch_size: int = 64) -> None:
        self.settings, self.learned, self.batch_size = settings, learned, batch_size

    def score(self, rollouts: Sequence[Rollout]) -> None:
        """Fill in the verdict, the components and the total of each."""
        scores = self._learned(rollouts)
        for r, learned in zip(rollouts, scores, strict=True):
            verdict = check(r.item, r.sample.text)
            # An answer in a reply that never ended is none: the person who asked is still waiting.
            r.correct = verdict.correct and not r.truncated
            r.formatted = verdict.formatted and not r.truncated
            r.parts = {"accuracy": float(r.correct), "format": float(r.formatted)}
            r.total = self.settings.accuracy * r.parts["accuracy"] + self.settings.format * r.parts["format"]
            if learned is not None:
                r.parts["learned"] = learned
                r.total += self.settings.learned * learned

    @torch.no_grad()
    def _learned(self, rollouts: Sequence[Rollout]) -> Sequence[float | None]:
        """The reward model's score of each conversation: the very ids that were sampled, read at their last token."""
        if self.learned is None:
            return [None] * len(rollouts)
        device = next(self.learned.parameters()).device
        rows = [r.prompt + r.sample.ids for r in rollouts]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = [0.0] * len(rows)
        for at in range(0, len(order), self.batch_size):
            part = order[at : at + self.batch_size]
            lengths = torch.tensor([len(rows[i]) for i in part])
            ids = torch.zeros(len(part), int(lengths.max()), dtype=torch.int64)
            for row, i in zip(ids, part, strict=True):
                row[: len(rows[i])] = torch.tensor(rows[i])
            with autocast("auto", device):
                scores = self.learned(ids.to(device), lengths.to(device))
            for i, score in zip(part, scores.tolist(), strict=True):
                found[i] = score
        return found


def open_reward_model(path: Path, tokenizer: Tokenizer) -> RewardModel:
    """The reward model at `path`, frozen. UserError where it reads other tokens than the policy writes."""
    model, its = load_reward_model(path)
    if its.digest != tokenizer.digest:
        raise UserError(
            "the reward model has another tokenizer than the model", str(path), "train both from the same sft model"
        )
    return model.eval().requires_grad_(False)
