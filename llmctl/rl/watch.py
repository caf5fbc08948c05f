"""What makes reinforcement learning legible: the statistics of a set of roll-outs, and a line when something is off."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from llmctl.rl.advantage import has_spread
from llmctl.rl.rewards import Rollout

# What R1-Zero began to write by itself when it learned to go over its own work (arXiv 2501.12948, figure 9).
_REFLECTION = ("wait", "let me check", "check:", "mistake", "try again")
_WINDOW = 10  # steps over which a symptom has to hold before it is named
_NGRAM = 4


def statistics(groups: Sequence[Sequence[Rollout]], rewards: Tensor) -> dict[str, Any]:
    """The row for the log. `rewards` (P, G) are the totals of `groups`."""
    flat = [r for group in groups for r in group]
    finished = [len(r.sample.ids) for r in flat if not r.truncated]
    checked = [group for group in groups if group and group[0].item.check]  # others are neither right nor wrong
    spread = has_spread(rewards)
    # The population's deviation where a group is of one reply, which has no other.
    deviation = rewards.std(-1, correction=min(1, rewards.shape[-1] - 1))
    found: dict[str, Any] = {
        "reward": rewards.nanmean().item(),
        "accuracy": mean(r.correct for r in flat),
        "formatted": mean(r.formatted for r in flat),
        "group_std": deviation.nanmean().item(),
        # A reply that is alone is compared with those of other problems, or with a critic: its problem teaches.
        "groups_without_spread": 1 - spread.float().mean().item() if rewards.shape[-1] > 1 else 0.0,
        "groups_all_right": mean(all(r.correct for r in group) for group in checked),
        "groups_all_wrong": mean(not any(r.correct for r in group) for group in checked),
        "length": mean(finished) if finished else None,  # of those that ended: cut ones would only show the limit
        "truncated": mean(r.truncated for r in flat),
        "repetition": mean(repetition(r.sample.ids) for r in flat),
        "reflection": mean(any(w in r.sample.text.lower() for w in _REFLECTION) for r in flat),
        "reflection_words": sum(r.sample.text.lower().count(w) for r in flat for w in _REFLECTION),
        "unscored": mean(r.total != r.total for r in flat),
        "rollout_tokens": sum(len(r.sample.ids) for r in flat),
    }
    for part in ("learned", "own", "overlong"):
        values = [r.parts[part] for r in flat if part in r.parts and r.parts[part] == r.parts[part]]
        if values:
            found[f"reward_{part}"] = mean(values)
    return found


def mean(values: Any) -> float:
    """The mean of numbers or truths; 0 of none."""
    found = [float(v) for v in values]
    return sum(found) / len(found) if found else 0.0


def repetition(ids: Sequence[int]) -> float:
    """The share of 4-grams that stood before in the same reply: 0 for ordinary text, near 1 for "the the the"."""
    grams = [tuple(ids[i : i + _NGRAM]) for i in range(len(ids) - _NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class Diagnosis:
    """Watches the rows of the log and says once, in a line, what is off and what to change."""

    def __init__(self, max_new_tokens: int) -> None:
        self.rows: deque[dict[str, Any]] = deque(maxlen=_WINDOW)
        self.first: dict[str, Any] = {}
        self.began: dict[str, float] = {}
        self.said: set[str] = set()
        self.max_new_tokens = max_new_tokens

    def see(self, row: dict[str, Any]) -> list[str]:
        """Take in the row of a step; the new lines, usually none."""
        self.first = self.first or row
        self.rows.append(row)
        for key, value in row.items():
            if isinstance(value, (int, float)):
                self.began.setdefault(key, float(value))
        if len(self.rows) < _WINDOW:
            return []
        lines = []
        for name, (test, line) in self._symptoms().items():
            if name not in self.said and test():
                self.said.add(name)
                lines.append(line)
        return lines

    def _symptoms(self) -> dict[str, tuple[Callable[[], bool], str]]:
        at = self._recent
        flat, wrong, right = at("groups_without_spread"), at("groups_all_wrong"), at("groups_all_right")
        why = "scored alike: the replies hardly differ, or the reward does not see how"
        if wrong > flat / 2:
            why = "all wrong: make the problems easier, or train sft longer"
        elif right > flat / 2:
            why = "all right: make the problems harder, there is nothing left to learn"
        started = float(self.first.get("length") or 0)
        return {
            "spread": (lambda: flat > 0.9, f"{flat:.0%} of the groups teach nothing, being {why}"),
            "truncation": (
                lambda: at("truncated") > 0.25,
                f"{at('truncated'):.0%} of the replies are cut at {self.max_new_tokens} tokens: raise "
                "rollouts.max_new_tokens",
            ),
            "overlong": (
                lambda: at("reward_overlong") < -0.2 and at("truncated") <= 0.25,
                f"replies lose {-at('reward_overlong'):.2f} each for ending near {self.max_new_tokens} tokens, which "
                "can outweigh being right: raise rollouts.max_new_tokens, or lower method.overlong",
            ),
            "repetition": (
                lambda: at("repetition") > 0.3 + float(self.first.get("repetition") or 0),
                f"{at('repetition'):.0%} of the text repeats itself: the reward is being gamed; lower the learning "
                "rates, or hold the model with method.beta",
            ),
            "length": (
                lambda: started > 0 and at("length") > 2 * started and at("accuracy") <= float(self.first["accuracy"]),
                f"replies grew from {started:.0f} to {at('length'):.0f} tokens and are no more often right",
            ),
            "entropy": (
                lambda: self._starts("entropy") > 0.05 and at("entropy") < 0.1 * self._starts("entropy"),
                f"the entropy fell from {self._starts('entropy'):.2f} to {at('entropy'):.3f} nats, tries are alike: "
                "lower the learning rate, raise method.clip_high, or practise harder problems",
            ),
            "negative kl": (
                lambda: at("kl_k1") < -0.01 and at("kl_k1") < -0.5 * at("kl"),
                f"k1 of the KL is {at('kl_k1'):.3f}, and no KL is negative: what is scored is not what was sampled "
                "(a filter of the sampler, a wrong mask), or the updates since the roll-outs are too many",
            ),
            "unscored": (
                lambda: at("unscored") > 0.1,
                f"{at('unscored'):.0%} of the replies have no reward: the reward function fails on them",
            ),
            "mismatch": (
                lambda: at("sampler_gap") > 0.1,
                f"the sampler's log-probabilities are {at('sampler_gap'):.2f} nats off the trainer's: set "
                "train.precision: fp32, or method.sampler_cap: 2",
            ),
        }

    def _starts(self, key: str) -> float:
        """The first value that was seen of `key`; 0 before."""
        return self.began.get(key, 0.0)

    def _recent(self, key: str) -> float:
        return mean(row.get(key) or 0.0 for row in self.rows)


def samples_to_show(groups: Sequence[Sequence[Rollout]]) -> list[tuple[str, Rollout]]:
    """The best, the median and the worst of all roll-outs by total reward, of those that have one."""
    scored = (r for group in groups for r in group if r.total == r.total)
    ranked = sorted(scored, key=lambda r: (-r.total, r.item.id))
    return [("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])] if ranked else []
