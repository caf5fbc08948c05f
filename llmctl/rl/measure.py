"""How well a model does on problems it never practises: greedy answers, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmctl.rl.rollouts import Writer
from llmctl.rl.watch import mean
from llmctl.verify import Item


@dataclass
class HeldOut:
    """Held-out problems, and who answers them."""

    writer: Writer
    items: list[Item]

    def measure(self) -> dict[str, Any]:
        """Accuracy, share in form, and mean length in tokens, each with `heldout_` before its name.

        Where no problem has a known answer, the mean reward in place of the first two.
        """
        found = [group[0] for group in self.writer.scored(self.items, 1, 0, 0.0)]
        length = {"heldout_length": mean(len(r.sample.ids) for r in found)}
        judged = [r for r in found if r.item.check]
        if not judged:
            return {"heldout_reward": mean(r.total for r in found if r.total == r.total), **length}
        return {
            "heldout_accuracy": mean(r.correct for r in judged),
            "heldout_formatted": mean(r.formatted for r in judged),
            **length,
        }
