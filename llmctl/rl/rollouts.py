"""Practice: draw problems, answer each several times, score the answers, make micro-batches of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.generate.engine import Engine, Sampling, ToolRunner
from llmctl.model.chat_format import render_prompt
from llmctl.model.tokenizer import Tokenizer
from llmctl.rl.advantage import group_relative, has_spread
from llmctl.rl.collate import Rows, batch_of, collate, cuts
from llmctl.rl.config import RlConfig
from llmctl.rl.loss import token_logprobs
from llmctl.rl.rewards import Rewards, Rollout
from llmctl.rl.watch import statistics
from llmctl.train.batch import Batch
from llmctl.train.device import autocast
from llmctl.verify import Item, problems


@dataclass
class Practice:
    """The source of the training loop: the micro-batches of a step are a function of the step and of the weights.

    `reference` is the frozen model that the KL penalty holds on to, or None. `last` are the newest groups of roll-outs;
    `report` has their statistics after a step that made new ones, for the log.
    """

    config: RlConfig
    model: nn.Module
    tokenizer: Tokenizer
    rewards: Rewards
    tools: Callable[[list[Item]], ToolRunner | None]
    reference: nn.Module | None = None

    def __post_init__(self) -> None:
        self.engine = Engine(self.model, self.tokenizer, self.config.train.precision)
        self.last: list[list[Rollout]] = []
        self.report: dict[str, Any] = {}
        self.collected = 0.0  # when the batches of the newest step were ready (time.monotonic)
        self._rows: Rows = {}

    def batches(self, step: int) -> list[Batch]:
        """New roll-outs every `method.updates` steps, used again in between. Empty where no group has a spread."""
        turn, again = divmod(step, self.config.method.updates)
        if again == 0:
            self._rows = self.collect(turn)
        else:
            self.report = {}
        self.collected = time.monotonic()
        if not self._rows:
            return []
        found = [batch_of(self._rows, *cut) for cut in cuts(self._rows, self.config.micro_tokens)]
        return [b for b in found if bool(b.extra["units"].sum())]

    def collect(self, turn: int) -> Rows:
        """One set of roll-outs under the present weights, as tensors."""
        begun = time.monotonic()
        self.last = self.attempt(turn)
        rewards = torch.tensor([[r.total for r in group] for group in self.last], dtype=torch.float32)
        advantages = group_relative(rewards, self.config.method.scale)
        # Without a spread every advantage is 0, and only the KL penalty would have a gradient.
        used = has_spread(rewards) if self.reference is None else torch.ones(len(rewards), dtype=torch.bool)
        kept = [r for group, use in zip(self.last, used.tolist(), strict=True) if use for r in group]
        rows: Rows = {}
        if kept:
            longest = self.config.rollouts.max_new_tokens
            rows = collate(kept, advantages[used].flatten().tolist(), self.config.method, longest)
            self._score(rows)
        self.report = {**statistics(self.last, rewards), "rollout_s": time.monotonic() - begun}
        return rows

    def attempt(self, turn: int) -> list[list[Rollout]]:
        """Scored groups of replies to the problems of a turn. The seed and the turn alone say which problems."""
        seed = self.config.seed * 1_000_003 + turn
        how = self.config.rollouts
        items = problems(self.config.task, how.prompts, seed, heldout=False, **self.config.options)
        prompts = [prompt_of(item, self.tokenizer) for item in items]
        sampling = Sampling(max_new_tokens=how.max_new_tokens, temperature=how.temperature, seed=seed)
        samples = self.engine.generate(prompts, sampling, how.group, self.tools(items), how.batch_size)
        groups = [
            [Rollout(item, prompt, s) for s in group]
            for item, prompt, group in zip(items, prompts, samples, strict=True)
        ]
        self.rewards.score([r for group in groups for r in group])
        return groups

    @torch.no_grad()
    def _score(self, rows: Rows) -> None:
        """Add what the loss compares with: today's log-probabilities, if there are later steps, and the reference's."""
        if self.config.method.updates > 1:
            rows["old"] = self._logprobs(self.model, rows)
        if self.reference is not None:
            rows["reference"] = self._logprobs(self.reference, rows)

    def _logprobs(self, model: nn.Module, rows: Rows) -> Tensor:
        """(N, T): what the training forward of `model` gives the sampled tokens, 0 elsewhere."""
        device = next(model.parameters()).device
        found = torch.zeros(rows["ids"].shape)
        for begin, end in cuts(rows, self.config.micro_tokens):
            batch = batch_of(rows, begin, end)
            with autocast(self.config.train.precision, device):
                logp, _ = token_logprobs(model, batch.to(device), self.config.rollouts.temperature)
            part = torch.zeros(batch.ids.numel())
            part[slice(None) if batch.trained is None else batch.trained] = logp.cpu()
            found[begin:end, : batch.ids.shape[1]] = part.view(batch.ids.shape)
        return found

    def state_dict(self) -> dict[str, Any]:
        """The roll-outs that are in use for several steps."""
        return dict(self._rows) if self.config.method.updates > 1 else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._rows = {k: v for k, v in state.items() if isinstance(v, Tensor)}


def prompt_of(item: Item, tokenizer: Tokenizer) -> list[int]:
    """The ids of everything before the first answer of the problem's conversation."""
    turns = item.messages
    first = next(i for i, m in enumerate(turns) if m["role"] == "assistant")
    return render_prompt(turns[:first], tokenizer)
