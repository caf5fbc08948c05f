"""Rankings of a policy's own replies, as InstructGPT collected them (arXiv 2203.02155, section 3.5): several replies
to a prompt, ordered from best to worst. There people ordered them; here whatever `rl` is rewarded by does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llmctl.rl.rewards import Rollout
from llmctl.rl.watch import mean


def ranking(group: Sequence[Rollout], texts: Sequence[str | None]) -> dict[str, Any] | None:
    """The replies of a group as a row of comparisons, the best first: {"prompt", "responses", "ranking", "kind", "id"},
    where equal rewards have equal ranks. `texts` are the replies as they are to be written; None is one that a
    comparison cannot hold.

    A reply that says the same as another stands there once, with the better reward, as whoever reads comparisons has
    it. Left out are empty replies and those without a reward. None where no two rewards differ.
    """
    rewards: dict[str, float] = {}
    for r, text in zip(group, texts, strict=True):
        if text is not None and text.strip() and not math.isnan(r.total):
            rewards[text] = max(r.total, rewards.get(text, r.total))
    levels = sorted(set(rewards.values()), reverse=True)
    if len(levels) < 2:
        return None
    responses = sorted(rewards, key=lambda text: -rewards[text])
    ranks = [levels.index(rewards[text]) for text in responses]
    item, prompt = group[0].item, prompt_turns(group[0])
    return {"prompt": prompt, "responses": responses, "ranking": ranks, "kind": item.kind, "id": item.id}


def prompt_turns(r: Rollout) -> list[dict[str, Any]]:
    """The messages that were answered: all before the worked solution, where the problem has one."""
    turns = r.item.messages
    end = next((i for i, m in enumerate(turns) if m["role"] == "assistant"), len(turns))
    return turns if turns[-1]["role"] != "assistant" else turns[:end]


def pairs(rows: Sequence[dict[str, Any]]) -> int:
    """How many ordered pairs the rankings hold, ties not counted."""
    return sum(sum(a < b for a in row["ranking"] for b in row["ranking"]) for row in rows)


def figures(parts: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the manifest says of the rows that `train` and `heldout` hold: of each how many pairs, which share of its
    groups had two different rewards, and how many had not and were left out; and the mean replies of a ranking.
    """
    found: dict[str, Any] = {}
    for name, prefix in (("train", ""), ("heldout", "heldout_")):
        kept = [r["row"] for r in parts[name] if r["row"]]
        found[f"{prefix}rankings"], found[f"{prefix}pairs"] = len(kept), pairs(kept)
        found[f"{prefix}spread"] = len(kept) / len(parts[name]) if parts[name] else 0.0
        found[f"{prefix}without_spread"] = len(parts[name]) - len(kept)
    return found | {"replies": mean(len(r["row"]["responses"]) for r in parts["train"] if r["row"])}
