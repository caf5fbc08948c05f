"""`rm`: from a chat model and comparisons to a model that scores replies."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch

from llmctl.console import Console
from llmctl.model.config import ModelConfig
from llmctl.model.folder import load_model, save_model
from llmctl.model.transformer import RewardModel
from llmctl.rm.batches import RankingSource
from llmctl.rm.config import RmConfig
from llmctl.rm.data import Data, Ranking, read_data
from llmctl.rm.loss import RankingLoss
from llmctl.rm.measure import Scores, accuracy, by_kind, length_bias, normalise, score_all
from llmctl.train import estimate
from llmctl.train.device import best_device
from llmctl.train.loop import Hook, Outcome, train
from llmctl.train.settings import TrainSettings
from llmctl.workspace import Artifact, Workspace

_TYPICAL = 256  # training rankings whose scores set the scale where nothing is held out


def run(config: RmConfig, workspace: Workspace, console: Console) -> Artifact:
    """Train a reward model and save it."""
    path = workspace.resolve(config.model, ("model",), files=True).path
    with workspace.build(config) as build:
        writer, tokenizer = load_model(path)
        data = read_data(config, workspace, tokenizer, longest(config, writer.config))
        tell(data, console)
        writer.lm_head = None  # it writes no more
        torch.manual_seed(config.seed)  # of the new head
        model = RewardModel(writer).to(best_device())
        source = RankingSource(data.train, config.prompts, config.micro_tokens, config.seed)
        watch = Watch(config, model, data.heldout or data.train[:_TYPICAL], console)
        outcome = train(
            model, source, RankingLoss(config.loss.center), settled(config, data), build=build, console=console,
            title="rm", hooks=[Hook(config.eval_every, watch)] if data.heldout else [],
        )  # fmt: skip
        gain, bias = normalise(model, watch.latest())
        scale = {"reward_gain": gain, "reward_bias": bias}
        build.figures |= figures(config, data, outcome, watch, build.metrics.rows()) | scale
        save_model(build.path, model, tokenizer, card(config, build.figures), extra=scale)
    return build.done()


def longest(config: RmConfig, shape: ModelConfig) -> int:
    """The most ids of a prompt with its reply."""
    return min(config.max_length or shape.context, shape.context)


def settled(config: RmConfig, data: Data) -> TrainSettings:
    """The training settings with the steps filled in."""
    steps = config.train.steps or max(1, ceil(config.epochs * len(data.train) / config.prompts))
    return config.train.model_copy(update={"steps": steps})


def tell(data: Data, console: Console) -> None:
    """What became of the comparisons."""
    pairs = sum(len(r.pairs) for r in data.train)
    console.info(f"rm: {len(data.train):,} comparisons, {pairs:,} pairs; measured on {len(data.heldout):,} held out")
    if data.left_out:
        console.warn(f"rm: comparisons left out: {data.left_out}")
    if not data.heldout:
        console.warn("rm: no comparison is held out, so nothing says how good the rewards are on new replies")


@dataclass
class Watch:
    """Scores of rankings, now and then and at the end."""

    config: RmConfig
    model: RewardModel
    rankings: list[Ranking]
    console: Console
    scores: Scores = field(default_factory=list)

    def __call__(self, step: int, model: object) -> dict[str, Any]:
        """The accuracy as rows of the log name it."""
        self.scores = score_all(self.model, self.rankings, self.config.train.precision, self.config.micro_tokens)
        found = accuracy(self.rankings, self.scores)
        interval = f"{found['low']:.1%} to {found['high']:.1%}"
        self.console.info(f"rm: step {step}, held-out pairs ranked right: {found['accuracy']:.1%} ({interval})")
        return {f"heldout_{k}": found[k] for k in ("accuracy", "low", "high", "loss")}

    def latest(self) -> Scores:
        """The scores by the finished model, taken now where the run was only taken up to be finished."""
        self.model.eval()
        if not self.scores:
            self.scores = score_all(self.model, self.rankings, self.config.train.precision, self.config.micro_tokens)
        return self.scores


def figures(config: RmConfig, data: Data, outcome: Outcome, watch: Watch, log: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says; from the log where a run that was taken up at its very end would not know it."""
    pairs = sum(len(r.pairs) for r in data.train)
    found: dict[str, Any] = {
        "in": f"{config.model}, {len(data.train):,} comparisons, {pairs:,} pairs",
        "comparisons": len(data.train),
        "pairs": pairs,
        "left_out": {
            "unreadable": len(data.unreadable),
            "tied": data.tied,
            "too_long": data.too_long,
            "held_out_prompt": data.overlap,
        },
        "steps": outcome.steps,
        "loss": outcome.loss,
        "train_tokens": outcome.tokens,
        "train_seconds": round(outcome.seconds, 1),
    }
    if not data.heldout:
        last = round(100 * float(outcome.last.get("accuracy", 0.0)), 1)
        head = {"label": "training pairs ranked right", "before": None, "after": last, "unit": "%"}
        return found | {"headline": head, "out": f"{outcome.steps:,} steps, nothing held out to measure on"}
    held = [row for row in log if "heldout_accuracy" in row]
    before, after = held[0], accuracy(watch.rankings, watch.scores)
    head = {
        "label": "held-out pairs ranked right",
        "before": round(100 * before["heldout_accuracy"], 1),
        "after": round(100 * after["accuracy"], 1),
        "unit": "%",
    }
    return found | {
        "headline": head,
        "out": f"right on {after['accuracy']:.1%} of {after['pairs']:,} held-out pairs "
        f"({after['low']:.1%} to {after['high']:.1%})",
        "heldout": after,
        "heldout_before": {k.removeprefix("heldout_"): v for k, v in before.items() if k.startswith("heldout_")},
        "by_kind": by_kind(watch.rankings, watch.scores),
        **length_bias(watch.rankings, watch.scores),
    }


def card(config: RmConfig, found: dict[str, Any]) -> str:
    """The model card's body."""
    return f"""\
A reward model: scores a reply, given the conversation before it. Trained from `{config.model}` on {found["pairs"]:,}
pairs of {found["comparisons"]:,} comparisons by the Bradley-Terry loss; {found["out"]}.

A score is a number for a whole conversation, rendered with the chat template and read at its last token. The better of
two replies is the one with the higher score. Scores have a standard deviation of 1 over replies like those it was
measured on, and a mean of 0 after adding `reward_bias` ({found["reward_bias"]:.4f}, in `config.json`); dividing a
difference by `reward_gain` ({found["reward_gain"]:.4f}) and taking the sigmoid gives the probability that was trained.

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForSequenceClassification.from_pretrained(path)
ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
score = model(**ids).logits[0, 0]
```
"""


def plan(config: RmConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What a run would do and cost."""
    path = workspace.resolve(config.model, ("model",), files=True).path
    writer, tokenizer = load_model(path)
    shape = writer.config
    data = read_data(config, workspace, tokenizer, longest(config, shape))
    settings = settled(config, data)
    each = sum(r.tokens for r in data.train) / len(data.train)
    width = max(r.longest for r in data.train)
    rows = max(1, min(config.micro_tokens // width, config.prompts * 2))
    tokens = round(each * config.prompts * settings.steps)
    pairs = [sum(len(r.pairs) for r in part) for part in (data.train, data.heldout)]
    return [
        ("model", f"{config.model}, {shape.parameters():,} parameters"),
        ("comparisons", f"{len(data.train):,} with {pairs[0]:,} pairs, {each:,.0f} tokens each on average"),
        ("left out", data.left_out or "none"),
        ("measured on", f"{pairs[1]:,} held-out pairs, before and after"),
        ("updates", f"{settings.steps:,} of {config.prompts} prompts with all their replies"),
        *estimate.rows(shape, tokens, rows, width, settings),
    ]
