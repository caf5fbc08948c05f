"""The guard against gaming a reward.

A policy that is paid by a learned reward finds what the reward likes wrongly, and what people would say of its replies
first rises with the proxy, then falls while the proxy goes on rising (arXiv 2210.10760: as a function of the square
root of the KL to the start). So now and then the same held-out prompts are answered, and the proxy is held against a
gold reward that is never trained on. Where the curves part, or the text decays, training ends with the best model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from llmctl.console import Console
from llmctl.generate.engine import Engine
from llmctl.rl import together
from llmctl.rl.config import GuardSettings
from llmctl.rl.rewards import Rollout
from llmctl.rl.rollouts import Writer
from llmctl.rl.watch import repetition
from llmctl.train import distributed
from llmctl.verify import Item
from llmctl.workspace.files import fsync_file, write_json

Gold = Callable[[Sequence[Rollout]], "list[float]"]
_SEED = 1  # the same noise at every measurement: a difference is then the model's
# In standard errors of the paired difference. The best of many noisy measurements is best by luck too, and the next
# ones fall below it: where nothing changed (64 prompts, 12 measurements), one error was passed in 98 % of 2,000
# simulated runs, two once in 53 %, and this rule in 18 %. A real fall is seen a measurement later, which costs steps
# and nothing else: what is saved is the best model.
_TWICE = 2.0  # two measurements running
_ONCE = 3.0  # or a single one


class Stopped(Exception):
    """The guard has ended the run. `line` says why."""

    def __init__(self, line: str) -> None:
        self.line = line
        super().__init__(line)


@dataclass
class Seen:
    """One measurement."""

    step: int
    proxy: float
    gold: list[float]  # of each prompt; NaN where it has none
    kl: float  # nats a reply
    repetition: float
    length: float

    @property
    def mean(self) -> float:
        """The mean gold."""
        known = [g for g in self.gold if not math.isnan(g)]
        return fmean(known) if known else math.nan


@dataclass
class Guard:
    """Measures and decides. `relative`: whether gold is compared as a part of its best (a rule or a function, which
    count from 0), or in its own units (a reward model's, whose standard deviation is 1). `place` keeps the best one.
    """

    settings: GuardSettings
    writer: Writer
    reference: Engine
    gold: Gold
    items: list[Item]
    place: Path
    console: Console
    relative: bool = True
    history: list[Seen] = field(default_factory=list)

    def __call__(self, step: int, model: nn.Module) -> dict[str, Any]:
        """Measure after `step` updates; Stopped where it is time. What it returns goes into the log."""
        found = self.answers()

        def seen_so_far() -> str:
            history = [s for s in self._known() if s.step < step] + [self.judged(step, found)]
            return json.dumps([vars(s) for s in history])

        # Of torchrun's processes the first one judges: what a person's function says might differ from call to call.
        self.history = [Seen(**s) for s in json.loads(together.told(seen_so_far))]
        seen, best = self.history[-1], self.best
        line = self.verdict(seen)
        if not distributed.rank():
            if best is seen:
                self._keep(model)
            write_json(self.place / "history.json", [vars(s) for s in self.history])
        row = {"guard_proxy": seen.proxy, "guard_gold": seen.mean, "guard_kl": seen.kl,
               "guard_sqrt_kl": math.sqrt(max(seen.kl, 0.0)), "guard_repetition": seen.repetition,
               "guard_length": seen.length}  # fmt: skip
        if not line:
            return row
        self.console.warn(f"step {step}: {line}")
        if self.settings.action == "stop":
            raise Stopped(f"{line}; the model of step {best.step} is kept")
        return row

    @property
    def best(self) -> Seen:
        """The measurement with the highest gold, the latest of equal ones: it has practised more."""
        return highest(self.history)

    def answers(self) -> list[Rollout]:
        """The held-out prompts answered by the model as it is now."""
        return [g[0] for g in self.writer.scored(self.items, 1, _SEED, self.writer.config.rollouts.temperature)]

    def judged(self, step: int, found: list[Rollout]) -> Seen:
        """What there is to see of the answers `found`."""
        temperature = self.writer.config.rollouts.temperature
        scores = self.reference.score([r.prompt for r in found], [r.sample.ids for r in found], temperature)
        kl = [
            sum(p - q for p, q, forced in zip(r.sample.logprobs, s, r.sample.forced, strict=True) if not forced)
            for r, s in zip(found, scores, strict=True)
        ]
        proxies = [r.total for r in found if not math.isnan(r.total)]
        proxy = fmean(proxies) if proxies else math.nan
        repeated = fmean(repetition(r.sample.ids) for r in found)
        return Seen(step, proxy, self.gold(found), fmean(kl), repeated, fmean(len(r.sample.ids) for r in found))

    def verdict(self, now: Seen) -> str:
        """Why to stop; empty where all is well."""
        how, first, best = self.settings, self.history[0], self.best
        if self._fell():
            way = "rose" if now.proxy > best.proxy else "fell too"
            return (
                f"the gold reward fell from {best.mean:.3f} at step {best.step} to {now.mean:.3f} while the practised "
                f"one {way} ({best.proxy:.3f} to {now.proxy:.3f}, KL {now.kl:.1f} nats)"
            )
        if how.kl_budget and now.kl > how.kl_budget:
            return f"the KL to the start is {now.kl:.1f} nats a reply, above guard.kl_budget"
        if now.repetition > first.repetition + how.repetition:
            return f"{now.repetition:.0%} of the text repeats itself, {first.repetition:.0%} at the start"
        if now.length > how.length * max(first.length, 1.0) and now.mean <= first.mean:
            return f"replies grew from {first.length:.0f} to {now.length:.0f} tokens, and gold is no better"
        return ""

    def _fell(self) -> bool:
        """Whether gold has fallen: by more than what is allowed, and by more than luck."""
        before, now = (self._depth(len(self.history) - back) for back in (1, 0))
        return now > _ONCE or min(before, now) > _TWICE

    def _depth(self, count: int) -> float:
        """How far the last of the first `count` measurements lies below the best of them, in standard errors of the
        difference; 0 where `guard.drop` allows it.
        """
        if not count:
            return 0.0
        best, now = highest(self.history[:count]), self.history[count - 1]
        lost = best.mean - now.mean
        allowed = self.settings.drop * (abs(best.mean) if self.relative else max(1.0, abs(best.mean)))
        if not lost > allowed:  # NaN, where a prompt has no gold, is no fall
            return 0.0
        error = paired_error(best.gold, now.gold)
        return lost / error if error else math.inf

    def restore(self, model: nn.Module) -> None:
        """Put the best weights back."""
        if not distributed.rank():
            kept = load_file(self.place / "best.safetensors")
            with torch.no_grad():
                for name, p in model.named_parameters():
                    p.copy_(kept[name])
        together.as_first(model)

    def _keep(self, model: nn.Module) -> None:
        """On the disk, since a run that is killed and taken up again has to know them too."""
        file, temporary = self.place / "best.safetensors", self.place / ".best.tmp"
        save_file({n: p.detach().cpu().contiguous() for n, p in model.named_parameters()}, temporary)
        fsync_file(temporary)
        temporary.replace(file)

    def _known(self) -> list[Seen]:
        """What an interrupted run had measured."""
        file = self.place / "history.json"
        if not self.history and file.exists():
            rows = json.loads(file.read_text(encoding="utf-8"))
            self.history = [Seen(**{**r, "gold": [math.nan if g is None else g for g in r["gold"]]}) for r in rows]
        return self.history


def highest(history: Sequence[Seen]) -> Seen:
    """The measurement with the highest gold, the latest of equal ones."""
    return max(history, key=lambda s: (-math.inf if math.isnan(s.mean) else s.mean, s.step))


def paired_error(one: Sequence[float], other: Sequence[float]) -> float:
    """The standard error of the mean difference of two lists of scores of the same prompts; NaN entries left out."""
    gaps = [a - b for a, b in zip(one, other, strict=True) if not math.isnan(a - b)]
    return stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
