"""What a reply earns: by rule (is it right, has it the form), by a reward model, by a person's function, weighted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from llmctl.errors import UserError
from llmctl.generate.engine import Sample
from llmctl.model.folder import load_reward_model, reward_scale
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import RewardModel
from llmctl.rl.config import RewardSettings
from llmctl.rl.own import OwnReward
from llmctl.tools.python import run_python
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

    @property
    def row(self) -> dict[str, object]:
        """What a person's reward function sees."""
        item, sample = self.item, self.sample
        prompt = [m for m in item.messages if m["role"] != "assistant"] or [{"role": "user", "content": item.question}]
        return {"question": item.question, "messages": prompt, "reply": sample.text, "answer": item.answer,
                "finished": not self.truncated, "tokens": len(sample.ids)}  # fmt: skip


class Judge:
    """A reward model that reads the very ids that were sampled, at their last token.

    A score becomes a reward by the gain and bias that its training recorded: 0 is the mean over replies of the model
    that it was trained from, and 1 their standard deviation (arXiv 1909.08593, section 2.2), so that weights mean the
    same whoever judges.
    """

    def __init__(self, model: RewardModel, bias: float = 0.0, gain: float = 1.0, batch_size: int = 64) -> None:
        self.model, self.bias, self.gain, self.batch_size = model, bias, gain, batch_size

    @torch.no_grad()
    def __call__(self, rollouts: Sequence[Rollout]) -> list[float]:
        """The score of each conversation."""
        device = next(self.model.parameters()).device
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
                scores = self.model(ids.to(device), lengths.to(device))
            for i, score in zip(part, scores.tolist(), strict=True):
                found[i] = self.gain * score + self.bias
        return found


class Rewards:
    """Scores roll-outs by rule and, where there are any, by a reward model and a person's function.

    `problems` has a line for each reply that the function could not score in the newest call.
    """

    def __init__(self, settings: RewardSettings, learned: Judge | None = None, own: OwnReward | None = None) -> None:
        self.settings, self.learned, self.own = settings, learned, own
        self.problems: list[str] = []

    def score(self, rollouts: Sequence[Rollout]) -> None:
        """Fill in the verdict, the components and the total of each."""
        for r in rollouts:
            r.parts = self._by_rule(r)
        if self.learned is not None:
            for r, score in zip(rollouts, self.learned(rollouts), strict=True):
                r.parts["learned"] = score
        if self.own is not None:
            for r, value in zip(rollouts, self.own.values([r.row for r in rollouts]), strict=True):
                r.parts["own"] = math.nan if value is None else value
            self.problems = self.own.problems
        for r in rollouts:
            r.total = self._total(r)

    def insist(self, rollouts: Sequence[Rollout]) -> None:
        """UserError where the function fails on every reply."""
        if self.own is not None and all(math.isnan(r.parts.get("own", math.nan)) for r in rollouts):
            self.own.refuse(self.problems, len(rollouts))

    def _by_rule(self, r: Rollout) -> dict[str, float]:
        """Right or not, in form or not; nothing where the problem has no known answer."""
        if not r.item.check:
            return {}
        verdict = check(r.item, r.sample.text, run_python)
        # An answer in a reply that never ended is none: the person who asked is still waiting.
        r.correct = verdict.correct and not r.truncated
        r.formatted = verdict.formatted and not r.truncated
        return {"accuracy": float(r.correct), "format": float(r.formatted)}

    def _total(self, r: Rollout) -> float:
        """The weighted sum. NaN where a component is unknown, unless it weighs nothing."""
        weights = self.settings
        total = weights.accuracy * r.parts.get("accuracy", 0.0) + weights.format * r.parts.get("format", 0.0)
        for name in ("learned", "own"):
            weight = getattr(weights, name)
            if name in r.parts and weight:
                total += weight * r.parts[name]
        return total - weights.unfinished if r.truncated and weights.unfinished else total


def open_judge(path: Path, tokenizer: Tokenizer, device: torch.device) -> Judge:
    """The reward model at `path`, frozen. UserError where it reads other tokens than the policy writes."""
    model, its = load_reward_model(path)
    if its.digest != tokenizer.digest:
        raise UserError(
            "the reward model has another tokenizer than the model", str(path), "train both from the same sft model"
        )
    return Judge(model.eval().requires_grad_(False).to(device), *reward_scale(path))
