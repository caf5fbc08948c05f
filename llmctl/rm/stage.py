"""`rm`: from a chat model and comparisons to a model that scores replies."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import torch

from llmctl.console import Console
from llmctl.model.config import ModelConfig
from llmctl.model.folder import REWARD_BIAS, REWARD_GAIN, load_model, save_model
from llmctl.model.transformer import RewardModel
from llmctl.rm.batches import RankingSource
from llmctl.rm.config import RmConfig
from llmctl.rm.data import Data, Ranking, read_data
from llmctl.rm.figures import card, figures
from llmctl.rm.loss import RankingLoss
from llmctl.rm.measure import Scores, accuracy, score_all
from llmctl.rm.page import write_page
from llmctl.rm.scale import gain_and_bias, reference_scores
from llmctl.train import estimate
from llmctl.train.device import best_device
from llmctl.train.loop import Hook, train
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
        ties = config.loss.ties > 0
        source = RankingSource(data.train, config.prompts, config.micro_tokens, config.seed, ties)
        watch = Watch(config, model, data.heldout or data.train[:_TYPICAL], console)
        outcome = train(
            model, source, RankingLoss(config.loss), settled(config, data), build=build, console=console,
            title="rm", hooks=[Hook(config.eval_every, watch)] if data.heldout else [],
        )  # fmt: skip
        scores = watch.latest()
        scale = scaled(config, model, path, watch, console)
        build.figures |= figures(config, data, outcome, scores, build.metrics.rows()) | scale
        write_page(build.path, config, build.figures, data.heldout, scores, tokenizer)
        save_model(build.path, model, tokenizer, card(config, build.figures), extra=scale)
    return build.done()


def scaled(config: RmConfig, model: RewardModel, path: Path, watch: Watch, console: Console) -> dict[str, float]:
    """The keys of `config.json` that make rewards of scores."""
    scores: Scores = []
    if config.scale.over == "model":
        scores = reference_scores(config, model, path, watch.rankings)
        if len(scores) < 2:
            console.warn("rm: the model answered no prompt, so rewards are scaled over the replies measured on")
    gain, bias = gain_and_bias(scores if len(scores) > 1 else watch.latest())
    return {REWARD_GAIN: gain, REWARD_BIAS: bias}


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
