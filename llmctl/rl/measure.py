"""How well a model does on problems it never practises: greedy answers, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmctl.generate.engine import Engine, Sampling, ToolRunner
from llmctl.rl.config import RlConfig
from llmctl.rl.rewards import Rewards, Rollout
from llmctl.rl.rollouts import prompt_of
from llmctl.rl.watch import mean
from llmctl.verify import Item, problems

# The same held-out problems whatever the seed of the run, so that runs with several seeds compare.
_SEED = 0


@dataclass
class HeldOut:
    """`eval_items` held-out problems of the task."""

    config: RlConfig
    engine: Engine
    rewards: Rewards
    tools: ToolRunner | None
    items: list[Item]

    def measure(self) -> dict[str, Any]:
        """Accuracy, share in form, and mean length in tokens, each with `heldout_` before its name."""
        prompts = [prompt_of(item, self.engine.tokenizer) for item in self.items]
        sampling = Sampling(max_new_tokens=self.config.rollouts.max_new_tokens, temperature=0.0)
        samples = self.engine.generate(prompts, sampling, 1, self.tools, self.config.rollouts.batch_size)
        found = [Rollout(i, p, s[0]) for i, p, s in zip(self.items, prompts, samples, strict=True)]
        self.rewards.score(found)
        return {
            "heldout_accuracy": mean(r.correct for r in found),
            "heldout_formatted": mean(r.formatted for r in found),
            "heldout_length": mean(len(r.sample.ids) for r in found),
        }


def heldout_items(config: RlConfig) -> list[Item]:
    """The held-out problems of the task; fewer than asked for where the task has no more."""
    return problems(config.task, config.eval_items, _SEED, heldout=True, **config.options)
