"""`rl`: a model practises on prompts, and what is rewarded becomes likelier; held-out ones are measured."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from llmctl.console import Console
from llmctl.generate.engine import Engine, ToolRunner
from llmctl.model.config import ModelConfig
from llmctl.model.folder import load_model, load_reward_model, save_model
from llmctl.model.hub import local
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer
from llmctl.rl import best_of_n, preference
from llmctl.rl.config import RlConfig
from llmctl.rl.critic import ActorCritic, policy_of
from llmctl.rl.guard import Gold, Guard, Stopped
from llmctl.rl.measure import HeldOut
from llmctl.rl.own import OwnReward
from llmctl.rl.policy import LikelihoodLoss, PolicyLoss
from llmctl.rl.rewards import Rewards, open_judge
from llmctl.rl.rollouts import Practice, Writer
from llmctl.rl.tasks import Task, open_task
from llmctl.rl.vllm_engine import open_engine
from llmctl.rl.watch import Diagnosis, samples_to_show
from llmctl.tools.search import SearchIndex
from llmctl.tools.toolbox import Toolbox
from llmctl.train import distributed
from llmctl.train.device import best_device
from llmctl.train.loop import Hook, train
from llmctl.verify import Item
from llmctl.workspace import Artifact, Build, Workspace


def run(config: RlConfig, workspace: Workspace, console: Console) -> Artifact:
    """Train the model named in `config` and save it as another; or, best-of-n, save its replies."""
    if config.method.name == "dpo":
        return preference.run(config, workspace, console)
    with workspace.build(config) as build, ExitStack() as stack:
        room = Room.open(config, workspace, console, stack)
        if config.method.name == "best-of-n":
            best_of_n.run(config, build, console, room.task, room.writer())
        else:
            practise(config, build, console, room)
    return build.done()


@dataclass
class Room:
    """What practising needs: the model, its task, its rewards, and a frozen copy of it where one is compared with."""

    config: RlConfig
    model: Transformer
    tokenizer: Tokenizer
    task: Task
    rewards: Rewards
    reference: Transformer | None
    critic: Transformer | None
    gold: Gold | None

    @classmethod
    def open(cls, config: RlConfig, workspace: Workspace, console: Console, stack: ExitStack) -> Room:
        """Load it all. `stack` ends what has to be ended."""
        path, device = workspace.resolve(config.model, ("model",), files=True).path, best_device()
        model, tokenizer = load_model(path)
        task = open_task(config, workspace, tokenizer, model.config.context)
        if task.left_out:
            console.warn(f"rl: {task.left_out:,} prompts left out: they leave no room for a reply")
        rewards, critic = Rewards(config.rewards), None
        if config.reward:
            scorer = workspace.resolve(config.reward, ("model",), files=True).path
            rewards.learned = open_judge(scorer, tokenizer, device)
            critic = load_reward_model(scorer)[0].backbone
        if config.function:
            rewards.own = stack.enter_context(OwnReward(config.function, config.rewards.timeout))
        gold = cls._gold(config, workspace, tokenizer, task, stack)
        wanted = config.method.beta or gold
        reference = load_model(path)[0].requires_grad_(False).to(device) if wanted else None
        return cls(config, model.to(device), tokenizer, task, rewards, reference, critic, gold)

    @staticmethod
    def _gold(
        config: RlConfig, workspace: Workspace, tokenizer: Tokenizer, task: Task, stack: ExitStack
    ) -> Gold | None:
        """The reward that nothing is trained on; None where there is none, or nothing to guard."""
        if not config.guard.every or not (config.gameable or config.gold or config.guard.function):
            return None
        if config.gold:
            scorer = workspace.resolve(config.gold, ("model",), files=True).path
            return open_judge(scorer, tokenizer, best_device())
        if config.guard.function:
            own = stack.enter_context(OwnReward(config.guard.function, config.rewards.timeout))
            return lambda found: [float("nan") if v is None else v for v in own([r.row for r in found])]
        if any(item.check for item in task.held_out(config.guard.items)):
            return lambda found: [float(r.correct) for r in found]
        return lambda found: [float("nan")] * len(found)  # the alarms that need no gold: KL, repetition, length

    def writer(self) -> Writer:
        """The model answering, as it is."""
        return Writer(self.config, open_engine(self.config, self.model, self.tokenizer), self.rewards, tools_for)


def practise(config: RlConfig, build: Build, console: Console, room: Room) -> None:
    """Train by roll-outs, and save the model."""
    model: Any = room.model
    held_out = room.task.held_out(max(config.eval_items, 1))
    if any(i.kind == "python" or i.check == "code" for i in held_out) and (off := Toolbox(python=True).off()):
        console.warn(off)
    if config.method.advantage == "gae" and config.method.rolls:
        torch.manual_seed(config.seed)
        model = ActorCritic(room.model, room.critic).to(best_device())
    reference = room.reference if config.method.beta else None
    practice = Practice(config, model, room.tokenizer, room.rewards, tools_for, reference, room.task)
    kind = LikelihoodLoss if config.method.name == "expert-iteration" else PolicyLoss
    loss = kind(config.method, config.rollouts.temperature, practice.weight, remember=practice.remember)
    if practice.compiles and isinstance(model, ActorCritic):
        model.critic.backbone.compile(dynamic=False)  # the loop compiles what it calls, the policy
    guard = guard_of(config, build, console, room, practice)
    log = Log(config, practice, loss, console, room.task, guard)
    stopped = ""
    try:
        train(
            model, practice, loss, config.train, build=build, console=console, title="rl", hooks=log.hooks(),
            state=practice,
        )  # fmt: skip
    except Stopped as e:
        assert guard is not None
        guard.restore(model)
        stopped = e.line
        build.metrics.log(step=guard.history[-1].step, stopped=stopped, **log.measure(guard.history[-1].step, model))
    if distributed.rank():
        return  # process 0 has the whole log, and alone writes
    build.figures |= figures(config, build, room.model.config, room.task, stopped)
    save_model(build.path, policy_of(model), room.tokenizer, card(config, build.figures))


def guard_of(config: RlConfig, build: Build, console: Console, room: Room, practice: Practice) -> Guard | None:
    """The guard, where there is something to hold the reward against."""
    items = room.task.held_out(config.guard.items)
    if room.gold is None or not items:
        return None
    reference = Engine(room.reference, room.tokenizer, config.train.precision)
    relative = not config.gold
    return Guard(config.guard, practice.writer, reference, room.gold, items, build.scratch, console, relative)


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
    task: Task
    guard: Guard | None = None
    warned: bool = field(default=False)

    def __post_init__(self) -> None:
        self.diagnosis = Diagnosis(self.config.rollouts.max_new_tokens)
        items = self.task.held_out(self.config.eval_items)
        # By rule alone where there are answers: a reward model has no right and wrong.
        judged = any(item.check for item in items)
        rewards = Rewards(self.config.rewards) if judged else self.practice.rewards
        writer = Writer(self.config, self.practice.engine, rewards, lambda _: self.tools)
        self.tools = tools_for(items)
        self.heldout = HeldOut(writer, items)

    def hooks(self) -> list[Hook]:
        """The statistics of every step, three roll-outs now and then, held-out problems before and after."""
        found = [Hook(1, self.statistics, first=False), Hook(self.config.eval_every, self.measure)]
        if self.config.show_every:
            found.append(Hook(self.config.show_every, self.show, first=False))
        if self.guard is not None:
            found.append(Hook(self.config.guard.every, self.guard))
        return found

    def statistics(self, step: int, model: nn.Module) -> dict[str, Any]:
        """The roll-outs of the step in numbers; a warning where they show that something is off."""
        row, seen = {**self.practice.report, "update_s": time.monotonic() - self.practice.collected}, self.loss.means()
        for line in self.diagnosis.see({**row, **seen}) if self.practice.report else ():
            self.console.warn(f"step {step}: {line}")
        problems = self.practice.rewards.problems
        if problems and not self.warned:
            self.warned = True
            self.console.warn(
                f"step {step}: your reward {self.config.function} {problems[0]}; {len(problems)} replies of the step "
                "are left out, and counted as `unscored` in the log from here on"
            )
        return row

    def measure(self, step: int, model: nn.Module) -> dict[str, Any]:
        """Greedy accuracy on held-out problems, or their mean reward."""
        if not self.heldout.items:
            return {}
        found = self.heldout.measure()
        if "heldout_accuracy" in found:
            shown = f"right: {found['heldout_accuracy']:.1%}"
        else:
            shown = f"mean reward: {found['heldout_reward']:.3f}"
        self.console.info(f"rl: step {step}, held-out {self.task.name} {shown}")
        return found

    def show(self, step: int, model: nn.Module) -> dict[str, Any]:
        """The best, the median and the worst roll-out of the step."""
        rows = []
        for rank, r in samples_to_show(self.practice.last):
            reply = " | ".join(r.sample.text.split("\n"))
            answer = f"  (answer: {r.item.answer})" if r.item.answer else ""
            self.console.info(f"  {rank:6} {r.total:5.2f}  {r.item.question}  ->  {reply}{answer}")
            rows.append({"rank": rank, "reward": r.total, "parts": r.parts, "question": r.item.question,
                         "reply": r.sample.text, "answer": r.item.answer})  # fmt: skip
        return {"rollouts": rows} if rows else {}


def figures(config: RlConfig, build: Build, model: ModelConfig, task: Task, stopped: str) -> dict[str, Any]:
    """What the manifest says, read from the step log, so that a run taken up at its very end has it too."""
    rows = build.metrics.rows()
    held = [r for r in rows if "heldout_length" in r]
    steps = [r for r in rows if "groups_without_spread" in r]
    count = sum(1 for _ in steps) * config.rollouts.prompts * config.rollouts.group
    done = max((r["step"] for r in rows if "loss" in r), default=0)
    return {
        "headline": headline(held, task),
        "in": f"{config.model}, {model.parameters() / 1e6:.1f} M parameters",
        "out": f"{count:,} roll-outs, {done} steps" + (", ended by the guard" if stopped else ""),
        "heldout_items": len(task.held_out(config.eval_items)),
        **{f"{name}_{when}": row[f"heldout_{name}"]
           for name in ("accuracy", "formatted", "reward")
           for when, row in (("before", held[0]), ("after", held[-1])) if held and f"heldout_{name}" in row},
        "reward_first": steps[0]["reward"],
        "reward_last": steps[-1]["reward"],
        "groups_without_spread_last": steps[-1]["groups_without_spread"],
        "length_last": steps[-1]["length"],
        "rollouts": count,
        "train_seconds": round(max((r["seconds"] for r in rows if "seconds" in r), default=0.0), 1),
        **({"stopped": stopped} if stopped else {}),
        **guarded(rows),
    }  # fmt: skip


def headline(held: list[dict[str, Any]], task: Task) -> dict[str, Any]:
    """The one number: held-out accuracy or, without answers, the held-out reward."""
    if held and "heldout_accuracy" in held[0]:
        before, after = (round(100 * row["heldout_accuracy"], 1) for row in (held[0], held[-1]))
        return {"label": f"held-out {task.name} right", "before": before, "after": after, "unit": "%"}
    before, after = (round(row["heldout_reward"], 3) for row in (held[0], held[-1])) if held else (None, None)
    return {"label": f"reward on held-out {task.name}", "before": before, "after": after, "unit": ""}


def guarded(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The curves of the guard: proxy and gold over the square root of the KL."""
    keys = ("step", "guard_sqrt_kl", "guard_proxy", "guard_gold")
    seen = [{k.removeprefix("guard_"): r[k] for k in keys} for r in rows if "guard_gold" in r and "loss" not in r]
    return {"guard": seen} if seen else {}


def card(config: RlConfig, found: dict[str, Any]) -> str:
    """The model card's body."""
    head = found["headline"]
    text = f"Reinforcement learning ({config.method.name}) from `{config.model}`: {found['out']}.\n"
    text += f"{head['label']}: {head['before']} {head['unit']} before, {head['after']} {head['unit']} after "
    text += f"({found['heldout_items']} items, greedy).\n"
    return text + (f"\nThe guard ended the run: {found['stopped']}.\n" if "stopped" in found else "")


def plan(config: RlConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What a run would do. A roll-out costs 2 operations a weight and token, training on it 6; lengths at most."""
    source = workspace.resolve(config.model, ("model",), files=True)
    file = local(source.path, weights=False) / "config.json"
    rows = [("model", config.model), ("method", config.method.name)]
    how, steps = config.rollouts, config.train.steps
    replies = how.prompts * how.group
    if file.is_file():
        shape = ModelConfig.from_hf(json.loads(file.read_text(encoding="utf-8")), str(file))
        flops = shape.flops_per_token(how.max_new_tokens) * replies * how.max_new_tokens
        models = 1 + bool(config.method.beta) + bool(config.reward)
        trained = 1 + (config.method.advantage == "gae")
        rows += [
            ("parameters", f"{shape.parameters():,}"),
            (
                "memory for weights, gradients, optimizer",
                f"{(4 * 4 * trained + 4 * (models - 1)) * shape.parameters() / 1e6:,.0f} MB",
            ),
            ("FLOPs a step, at most", f"{flops * 4 / 3:.2e}"),
        ]
    if config.method.name == "dpo":
        return [*rows, ("comparisons", ", ".join(config.data)), ("steps", f"{steps:,} of {how.prompts} comparisons")]
    return [
        *rows,
        ("roll-outs a step", f"{how.prompts} problems x {how.group} = {replies}"),
        ("tokens a step, at most", f"{replies * how.max_new_tokens:,}"),
        ("steps", f"{steps:,} ({config.method.updates} on each set of roll-outs)"),
        ("reward", reward_line(config)),
        ("held-out problems", f"{config.eval_items:,} of {', '.join(config.data) or config.task}, before and after"),
    ]


def reward_line(config: RlConfig) -> str:
    """The reward as a sum."""
    weights = config.rewards
    parts = [(weights.accuracy, "right"), (weights.format, "in form")]
    parts += [(weights.learned, config.reward)] if config.reward else []
    parts += [(weights.own, config.function)] if config.function else []
    return " + ".join(f"{w:g} x {name}" for w, name in parts if w)
