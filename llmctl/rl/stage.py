"""`rl`: practise on problems with known answers until held-out ones come out right more often."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from torch import nn

from llmctl.console import Console
from llmctl.generate.engine import Engine, ToolRunner
from llmctl.model.config import ModelConfig
from llmctl.model.folder import load_model, save_model
from llmctl.model.hub import local
from llmctl.rl.config import RlConfig
from llmctl.rl.loss import PolicyLoss
from llmctl.rl.measure import HeldOut, heldout_items
from llmctl.rl.rewards import Rewards, open_reward_model
from llmctl.rl.rollouts import Practice
from llmctl.rl.watch import Diagnosis, samples_to_show
from llmctl.tools.search import SearchIndex
from llmctl.tools.toolbox import Toolbox
from llmctl.train.device import best_device
from llmctl.train.loop import Hook, train
from llmctl.verify import Item
from llmctl.workspace import Artifact, Build, Workspace


def run(config: RlConfig, workspace: Workspace, console: Console) -> Artifact:
    """Train the model named in `config` and save it as another."""
    path = workspace.resolve(config.model, ("model",), files=True).path
    with workspace.build(config) as build:
        device = best_device()
        model, tokenizer = load_model(path)
        rewards = Rewards(config.rewards)
        if config.reward:
            scorer = workspace.resolve(config.reward, ("model",), files=True).path
            rewards.learned = open_reward_model(scorer, tokenizer).to(device)
        reference = load_model(path)[0].requires_grad_(False).to(device) if config.method.beta else None
        practice = Practice(config, model.to(device), tokenizer, rewards, tools_for, reference)
        method = config.method
        loss = PolicyLoss(method.clip_low, method.clip_high, method.beta, config.rollouts.temperature)
        log = Log(config, practice, loss, console)
        outcome = train(
            model, practice, loss, config.train, build=build, console=console, title="rl", hooks=log.hooks(),
            state=practice,
        )  # fmt: skip
        build.figures |= figures(config, build, model.config, outcome.seconds)
        save_model(build.path, model, tokenizer, card(config, build.figures))
    return build.done()


def tools_for(items: list[Item]) -> ToolRunner | None:
    """The tools that a task's problems are to be solved with, and the documents that there are to find."""
    documents = [(i.document["title"], i.document["text"]) for i in items if i.document]
    python = any(i.kind == "python" for i in items)
    if not documents and not python:
        return None
    return Toolbox(SearchIndex.build(documents) if documents else None, python)


@dataclass
class Log:
    """What a run shows and writes down besides the loss."""

    config: RlConfig
    practice: Practice
    loss: PolicyLoss
    console: Console

    def __post_init__(self) -> None:
        self.diagnosis = Diagnosis(self.config.rollouts.max_new_tokens)
        items = heldout_items(self.config)
        engine = Engine(self.practice.model, self.practice.tokenizer, self.config.train.precision)
        # By rule alone: a reward model has no right and wrong.
        self.heldout = HeldOut(self.config, engine, Rewards(self.config.rewards), tools_for(items), items)

    def hooks(self) -> list[Hook]:
        """The statistics of every step, three roll-outs now and then, held-out problems before and after."""
        found = [Hook(1, self.statistics, first=False), Hook(self.config.eval_every, self.measure)]
        if self.config.show_every:
            found.append(Hook(self.config.show_every, self.show, first=False))
        return found

    def statistics(self, step: int, model: nn.Module) -> dict[str, Any]:
        """The roll-outs of the step in numbers; a warning where they show that something is off."""
        row = {**self.practice.report, "update_s": time.monotonic() - self.practice.collected}
        for line in self.diagnosis.see({**row, **self.loss.last}) if self.practice.report else ():
            self.console.warn(f"step {step}: {line}")
        return row

    def measure(self, step: int, model: nn.Module) -> dict[str, Any]:
        """Greedy accuracy on held-out problems."""
        found = self.heldout.measure()
        self.console.info(f"rl: step {step}, held-out {self.config.task} right: {found['heldout_accuracy']:.1%}")
        return found

    def show(self, step: int, model: nn.Module) -> dict[str, Any]:
        """The best, a middle and the worst roll-out of the step."""
        rows = []
        for rank, r in samples_to_show(self.practice.last):
            reply = " | ".join(r.sample.text.split("\n"))
            self.console.info(f"  {rank:6} {r.total:5.2f}  {r.item.question}  ->  {reply}  (answer: {r.item.answer})")
            rows.append({"rank": rank, "reward": r.total, "parts": r.parts, "question": r.item.question,
                         "reply": r.sample.text, "answer": r.item.answer})  # fmt: skip
        return {"rollouts": rows} if rows else {}


def figures(config: RlConfig, build: Build, model: ModelConfig, seconds: float) -> dict[str, Any]:
    """What the manifest says, read from the step log, so that a run taken up at its very end has it too."""
    rows = build.metrics.rows()
    held = [r for r in rows if "heldout_accuracy" in r]
    steps = [r for r in rows if "groups_without_spread" in r]
    before, after = held[0]["heldout_accuracy"], held[-1]["heldout_accuracy"]
    count = -(-config.train.steps // config.method.updates) * config.rollouts.prompts * config.rollouts.group
    return {
        "headline": {
            "label": f"held-out {config.task} right",
            "before": round(100 * before, 1),
            "after": round(100 * after, 1),
            "unit": "%",
        },
        "in": f"{config.model}, {model.parameters() / 1e6:.1f} M parameters",
        "out": f"{count:,} roll-outs, {config.train.steps} steps",
        "heldout_items": len(heldout_items(config)),
        "accuracy_before": before,
        "accuracy_after": after,
        "formatted_before": held[0]["heldout_formatted"],
        "formatted_after": held[-1]["heldout_formatted"],
        "reward_first": steps[0]["reward"],
        "reward_last": steps[-1]["reward"],
        "groups_without_spread_last": steps[-1]["groups_without_spread"],
        "length_last": steps[-1]["length"],
        "rollouts": count,
        "train_seconds": round(seconds, 1),
    }


def card(config: RlConfig, found: dict[str, Any]) -> str:
    """The model card's body."""
    head = found["headline"]
    return (
        f"Reinforcement learning ({config.method.name}) on {config.task} from `{config.model}`: {found['out']}.\n"
        f"Greedy accuracy on {found['heldout_items']} held-out problems: "
        f"{head['before']} % before, {head['after']} % after.\n"
    )


def plan(config: RlConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What a run would do. A roll-out costs 2 operations a weight and token, training on it 6; lengths at most."""
    source = workspace.resolve(config.model, ("model",), files=True)
    file = local(source.path, weights=False) / "config.json"
    rows = [("model", config.model)]
    how, steps = config.rollouts, config.train.steps
    replies = how.prompts * how.group
    if file.is_file():
        shape = ModelConfig.from_hf(json.loads(file.read_text(encoding="utf-8")), str(file))
        flops = shape.flops_per_token(how.max_new_tokens) * replies * how.max_new_tokens
        models = 1 + bool(config.method.beta) + bool(config.reward)
        rows += [
            ("parameters", f"{shape.parameters():,}"),
            (
                "memory for weights, gradients, optimizer",
                f"{(4 * 4 + 4 * (models - 1)) * shape.parameters() / 1e6:,.0f} MB",
            ),
            ("FLOPs a step, at most", f"{flops * 4 / 3:.2e}"),
        ]
    return [
        *rows,
        ("roll-outs a step", f"{how.prompts} problems x {how.group} = {replies}"),
        ("tokens a step, at most", f"{replies * how.max_new_tokens:,}"),
        ("steps", f"{steps:,} ({config.method.updates} on each set of roll-outs)"),
        ("reward", reward_line(config)),
        ("held-out problems", f"{config.eval_items:,} of {config.task}, before and after"),
    ]


def reward_line(config: RlConfig) -> str:
    """The reward as a sum."""
    weights = config.rewards
    parts = [(weights.accuracy, "right"), (weights.format, "in form")]
    parts += [(weights.learned, config.reward)] if config.reward else []
    return " + ".join(f"{w:g} x {name}" for w, name in parts if w)
