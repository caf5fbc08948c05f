"""Practice: draw problems, answer each several times, score the answers, make micro-batches of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.generate.control import stop_ids
from llmctl.generate.engine import Engine, Sample, Sampling, ToolRunner
from llmctl.model.tokenizer import Tokenizer
from llmctl.rl import together
from llmctl.rl.advantage import advantages, gae, has_spread, overlong, whiten
from llmctl.rl.collate import Rows, collate
from llmctl.rl.config import RlConfig
from llmctl.rl.critic import policy_of
from llmctl.rl.losses import k1
from llmctl.rl.packs import FULL_PASS, Shape, packed, shape_for
from llmctl.rl.policy import KlWeight, token_logprobs, trained
from llmctl.rl.rewards import Rewards, Rollout
from llmctl.rl.tasks import Task, prompt_of
from llmctl.rl.vllm_engine import VllmEngine, open_engine
from llmctl.rl.watch import statistics
from llmctl.train import distributed
from llmctl.train.batch import Batch
from llmctl.train.compiling import wanted
from llmctl.train.device import autocast
from llmctl.verify import Item

Tools = Callable[[list[Item]], "ToolRunner | None"]


@dataclass
class Writer:
    """Answers problems: prompts rendered, replies sampled, scored."""

    config: RlConfig
    engine: Engine | VllmEngine
    rewards: Rewards
    tools: Tools

    def replies(
        self, items: list[Item], n: int, seed: int, temperature: float, part: range | None = None
    ) -> list[list[Rollout]]:
        """`n` replies to each problem (to those of `part` alone, where it is given), not scored yet. Over the full
        vocabulary, so that their log-probabilities are those of what was sampled from.
        """
        part = range(len(items)) if part is None else part
        how, mine = self.config.rollouts, [items[i] for i in part]
        prompts = [prompt_of(item, self.engine.tokenizer, how.template) for item in mine]
        sampling = Sampling(
            max_new_tokens=how.max_new_tokens, temperature=temperature, seed=seed, stop_strings=tuple(how.stop),
            first=part.start,
        )  # fmt: skip
        samples = self.engine.generate(prompts, sampling, n, self.tools(items), how.batch_size)
        return [
            [Rollout(item, prompt, self._whole(s, sampling)) for s in group]
            for item, prompt, group in zip(mine, prompts, samples, strict=True)
        ]

    def scored(self, items: list[Item], n: int, seed: int, temperature: float) -> list[list[Rollout]]:
        """The same, scored. Of torchrun's processes each answers its share of the problems."""

        def answered(part: range) -> list[list[Rollout]]:
            groups = self.replies(items, n, seed, temperature, part)
            self.rewards.score([r for group in groups for r in group])
            return groups

        groups = together.shared(items, self.rewards, answered)
        self.rewards.insist([r for group in groups for r in group])
        return groups

    def _whole(self, sample: Sample, sampling: Sampling) -> Sample:
        """With the text that ended it: a rule has to see the `</answer>` that the engine leaves out."""
        if not sampling.stop_strings or not sample.ids:
            return sample
        by_token = sample.finish == "stop" and sample.ids[-1] in stop_ids(self.engine.tokenizer, sampling)
        return replace(sample, text=self.engine.tokenizer.decode(sample.ids[:-1] if by_token else sample.ids))


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
    tools: Tools
    reference: nn.Module | None = None
    task: Task | None = None
    last: list[list[Rollout]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    collected: float = 0.0  # when the batches of the newest step were ready (time.monotonic)
    shape: Shape | None = None  # of every micro-batch, from the first roll-outs on

    fixed_shape = True

    def __post_init__(self) -> None:
        method = self.config.method
        self.task = self.task or Task(self.config)
        self.engine = open_engine(self.config, policy_of(self.model), self.tokenizer)
        self.writer = Writer(self.config, self.engine, self.rewards, self.tools)
        self.weight = KlWeight(method.beta, method.kl_target, method.kl_horizon)
        self._rows: Rows = {}
        self.compiles = wanted(self.model, self, self.config.train)

    @property
    def tokens_a_step(self) -> int:
        """How many tokens a step trains on, about: how long the replies will be nobody knows before."""
        how = self.config.rollouts
        return how.prompts * how.group * how.max_new_tokens

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
        assert self.shape is not None
        found = packed(together.mine(self._rows), self.shape, self.compiles)
        return found if distributed.size() == 1 else [together.divided(b) for b in found]

    def collect(self, turn: int) -> Rows:
        """One set of roll-outs under the present weights, as tensors."""
        begun = time.monotonic()
        self.last = self.attempt(turn)
        rewards = totals(self.last)
        self.report = statistics(self.last, rewards)
        if self.config.method.name == "expert-iteration":
            rows = self._examples()
        else:
            rows = self._judged(rewards)
        self.report |= {"rollout_s": time.monotonic() - begun}
        counts = rows["units"] > 0 if rows else torch.zeros(0)
        return {k: v[counts] for k, v in rows.items()} if bool(counts.any()) else {}

    def remember(self, batch: Batch, logp: Tensor) -> None:
        """Take what the first update found as today's log-probabilities, for the later ones."""
        if self.config.method.updates > 1:
            old = self._rows.setdefault("old", torch.zeros(self._rows["ids"].shape))
            old.view(-1)[trained(batch.extra["at"], batch).cpu()] = logp.cpu()

    def attempt(self, turn: int) -> list[list[Rollout]]:
        """Scored groups of replies to the problems of a turn; with dynamic sampling, further problems in place of those
        whose groups have no spread (DAPO, arXiv 2503.14476, section 3.2).
        """
        assert self.task is not None
        how, method, found, wasted = self.config.rollouts, self.config.method, [], []
        for again in range(method.dynamic_sampling + 1):
            items, seed = self.task.draw(turn, again)
            groups = self.writer.scored(items, how.group, seed, how.temperature)
            if method.overlong:
                _shape(groups, how.max_new_tokens, method.overlong)
            teaches = has_spread(totals(groups)).tolist() if method.dynamic_sampling else [True] * len(groups)
            found += [g for g, good in zip(groups, teaches, strict=True) if good]
            wasted += [g for g, good in zip(groups, teaches, strict=True) if not good]
            if len(found) >= how.prompts:
                break
        return found[: how.prompts] + wasted  # the wasted ones are in the log, and in no gradient

    def _judged(self, rewards: Tensor) -> Rows:
        """The roll-outs with what the policy's loss needs to know of each token."""
        method = self.config.method
        compared = method.grouped and self.reference is None
        # Without a spread every advantage is 0, and only a KL penalty would have a gradient.
        used = has_spread(rewards) if compared else torch.ones(len(rewards), dtype=torch.bool)
        if not bool(used.any()):
            return {}
        kept = [r for group, use in zip(self.last, used.tolist(), strict=True) if use for r in group]
        if method.grouped:
            scored = torch.ones(len(kept), dtype=torch.bool)  # in a group, what has no reward has advantage 0
        else:
            scored = ~rewards[used].flatten().isnan()
            kept = [r for r, there in zip(kept, scored.tolist(), strict=True) if there]
        rows = collate(kept, method, self.config.rollouts.max_new_tokens) if kept else {}
        if not rows:
            return {}
        self._settle(rows)
        self._score(rows)
        grid = rewards[used]
        penalty = self._penalty(rows)
        reply, index = rows.pop("reply"), rows.pop("index")
        if method.advantage == "gae":
            self._estimate(rows, grid.flatten()[scored][index], penalty)
        else:
            if penalty is not None:
                taken = torch.zeros(len(kept)).index_put((index,), penalty.sum(-1))
                grid = grid - torch.zeros(grid.numel()).masked_scatter(scored, taken).view(grid.shape)
            each = advantages(grid, method.advantage, method.scale).flatten()[scored][index]
            rows["advantages"] = each[:, None] * reply
        return rows

    def _penalty(self, rows: Rows) -> Tensor | None:
        """(N, T): what the KL penalty takes off the reward of each token, where it is there; the controller is told."""
        if self.reference is None:
            return None
        mask = rows["weights"] > 0
        before = rows["old"] if "old" in rows else rows["sampled"]
        kl = torch.where(mask, k1(before, rows["reference"]), 0.0)
        each = kl.sum(-1)
        self.report |= {"kl_reply": float(each.mean()), "beta": self.weight.value}
        weight = self.weight.value
        self.weight.see(float(each.mean()), len(each))
        return weight * kl if self.config.method.kl_in == "reward" else None

    def _estimate(self, rows: Rows, rewards: Tensor, penalty: Tensor | None) -> None:
        """Advantages and returns by the critic: the reward is earned at a reply's last token, the penalty at each."""
        method, mask = self.config.method, rows["weights"] > 0
        values = torch.where(mask, self._values(rows), 0.0)
        earned = torch.zeros_like(values) if penalty is None else -penalty
        last = rows["weights"].shape[1] - 1 - mask.flip(-1).float().argmax(-1)
        earned[torch.arange(len(last)), last] += rewards
        found, rows["returns"] = gae(earned, values, mask, method.gamma, method.gae_lambda)
        rows["values"] = values
        rows["advantages"] = whiten(found, mask) if method.whiten else found
        returns = rows["returns"][mask]
        unexplained = (returns - values[mask]).var() / returns.var().clamp(min=1e-8)
        self.report |= {"value_mean": float(values[mask].mean()), "explained": 1 - float(unexplained)}

    def _examples(self) -> Rows:
        """The replies that are worth learning by heart, each once."""
        kept = [r for group in self.last for r in chosen(group, self.config.method.keep)]
        self.report |= {"kept": len(kept)}
        if not kept:
            return {}
        rows = collate(kept, self.config.method, self.config.rollouts.max_new_tokens)
        del rows["reply"], rows["index"]
        self._settle(rows)
        return rows

    def _settle(self, rows: Rows) -> None:
        """Choose the shape of the micro-batches, once; again where a reply is longer than a row."""
        if self.shape is None or int(rows["lengths"].max()) > self.shape.width:
            tokens = self.config.micro_tokens
            if self.compiles and next(self.model.parameters()).device.type == "cpu":
                tokens = min(tokens, FULL_PASS)
            asked = max(len(group[0].prompt) for group in self.last if group)
            self.shape = shape_for(rows, asked + self.config.rollouts.max_new_tokens - 1, tokens)

    @torch.no_grad()
    def _score(self, rows: Rows) -> None:
        """Add what the loss compares with: today's log-probabilities, and the reference's. The first update finds the
        former itself, without another pass: `remember` keeps them. A penalty in the reward needs them before, and of
        several processes each would have only its own.
        """
        method = self.config.method
        early = self.reference is not None and method.kl_in == "reward"
        if early or (method.updates > 1 and distributed.size() > 1):
            rows["old"] = self._logprobs(self.model, rows)
        if self.reference is not None:
            rows["reference"] = self._logprobs(self.reference, rows)

    def _logprobs(self, model: nn.Module, rows: Rows) -> Tensor:
        """(N, T): what the training forward of `model` gives the sampled tokens, 0 elsewhere."""
        return self._forward(rows, lambda b: token_logprobs(model, b, self.config.rollouts.temperature)[0])

    @torch.no_grad()
    def _values(self, rows: Rows) -> Tensor:
        """(N, T): what the critic expects at each trained position, 0 elsewhere."""
        critic: Any = self.model.critic
        return self._forward(rows, lambda b: trained(critic(b.ids, b.positions, b.segments), b))

    def _forward(self, rows: Rows, call: Callable[[Batch], Tensor]) -> Tensor:
        """(N, T) from calls on micro-batches, which give a number for each trained position."""
        assert self.shape is not None
        device = next(self.model.parameters()).device
        found = torch.zeros(rows["ids"].shape)
        part = replace(self.shape, rows=-(-self.shape.rows // distributed.size()))  # something for every process
        for batch in packed(rows, part, self.compiles)[distributed.rank() :: distributed.size()]:
            with autocast(self.config.train.precision, device):
                values = call(batch.to(device))
            found.view(-1)[trained(batch.extra["at"], batch)] = values.float().cpu()
        return together.summed(found)

    def state_dict(self) -> dict[str, Any]:
        """The roll-outs that are in use for several steps, and where the KL controller is."""
        kept: dict[str, Any] = dict(self._rows) if self.config.method.updates > 1 else {}
        shape = [self.shape.rows, self.shape.width] if self.shape else None
        return kept | {"kl_weight": self.weight.value, "shape": shape}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._rows = {k: v for k, v in state.items() if isinstance(v, Tensor)}
        self.weight.value = float(state.get("kl_weight", self.weight.value))
        self.shape = Shape(*state["shape"]) if state.get("shape") else None


def totals(groups: Sequence[Sequence[Rollout]]) -> Tensor:
    """(P, G) float32: what each reply earned."""
    return torch.tensor([[r.total for r in group] for group in groups], dtype=torch.float32)


def chosen(group: Sequence[Rollout], keep: str) -> list[Rollout]:
    """The replies of a group to learn from, none twice: those that are right, or the best where rewards differ."""
    scored = [r for r in group if r.total == r.total]
    if keep == "right":
        return list({tuple(r.sample.ids): r for r in scored if r.correct}.values())
    best = max(scored, key=lambda r: r.total, default=None)
    return [best] if best is not None and best.total > min(r.total for r in scored) else []


def _shape(groups: Sequence[Sequence[Rollout]], longest: int, buffer: int) -> None:
    """Take DAPO's overlong penalty off every total."""
    for r in (r for group in groups for r in group):
        r.parts["overlong"] = float(overlong(torch.tensor(float(len(r.sample.ids))), longest, min(buffer, longest)))
        r.total += r.parts["overlong"]
