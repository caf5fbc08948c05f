"""What the guard is worth: one policy practises for a reward model that can be gamed, unguarded and guarded.

    python benchmarks/rl_guard.py MODEL [-w WORKSPACE] [--steps 80] [--seeds 0]

MODEL is a chat model of the workspace that has learned `synth`'s names: `chat` of `llmctl run rlhf -s chat.epochs=5`.
The reward model that it practises for is made here, from comparisons by raters who read carelessly: every `--words`
words more are worth a grade to them (people have that bias too, arXiv 2310.03716), so that one word thirty times beats
a right sentence.
Gold is the share of right answers, by rule: a known fact told, a made-up name refused.

Both policies practise with the same prompts, seed and noise, without a penalty on the KL; one run only warns, the other
stops and keeps its best model. Then all three models answer the held-out prompts anew, with other noise than the guard
has seen. The practised reward is in standard deviations of the starting model's replies, 0 being their mean.
"""

from __future__ import annotations

import argparse
import json
import math
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from llmctl.console import Console
from llmctl.formats.comparisons import read_comparisons
from llmctl.generate.engine import Engine
from llmctl.model.folder import load_model, load_reward_model
from llmctl.recipe import StageSettings
from llmctl.rl.config import RlConfig
from llmctl.rl.guard import Guard, Seen, paired_error
from llmctl.rl.rewards import Rollout
from llmctl.rl.stage import Room
from llmctl.rl.stage import run as practise
from llmctl.rm.config import RmConfig
from llmctl.rm.data import read_data
from llmctl.rm.measure import accuracy, score_all
from llmctl.rm.stage import run as train_judge
from llmctl.synth.config import SynthConfig
from llmctl.synth.stage import run as synth
from llmctl.train.device import best_device
from llmctl.workspace import Artifact, Workspace

Row = dict[str, Any]
TRIES = 4  # answers to each held-out prompt when the models are compared


class Careless(StageSettings):
    """Comparisons by raters to whom so many words more are worth a grade."""

    stage: ClassVar[str] = "synth"
    makes: ClassVar[str] = "comparisons"

    data: str
    words: int


def main() -> None:
    args = arguments()
    workspace, console = Workspace(args.workspace), Console()
    right = made(SynthConfig, synth, workspace, console, out="bench-guard-right", seed=7, heldout=100,
                 mix={"preferences": args.comparisons},
                 preferences={"responses": [4, 4], "kinds": ["names"]})  # fmt: skip
    made(SynthConfig, synth, workspace, console, out="bench-guard-questions", heldout=200, mix={"names": 800})
    careless = careless_of(right, args.words, workspace)
    judge = made(RmConfig, train_judge, workspace, console, out="bench-guard-judge", model=args.model,
                 comparisons=[careless.name], scale={"over": "model"})  # fmt: skip
    seeds = []
    for seed in args.seeds:
        runs = {action: practised(args, action, seed, workspace, console) for action in ("warn", "stop")}
        seeds.append(compared(args, seed, runs, workspace))
        console.table(f"seed {seed}", COLUMNS, [shown(row) for row in seeds[-1]["rows"]])
    print(json.dumps({"judge": looks(judge, careless, right, workspace), "seeds": seeds}, indent=2))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("-w", "--workspace", default="workspace")
    parser.add_argument("--comparisons", type=int, default=300)
    parser.add_argument("--words", type=int, default=3, help="that are worth a grade to the careless")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--every", type=int, default=5, help="steps between the guard's measurements")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args()


def made(kind: Any, run: Any, workspace: Workspace, console: Console, **settings: Any) -> Artifact:
    """What a stage makes of `settings`, or the finished one of an earlier call."""
    config = kind.model_validate(settings)
    found: Artifact = workspace.current(config) or run(config, workspace, console)
    return found


def careless_of(right: Artifact, words: int, workspace: Workspace) -> Artifact:
    """The same replies, ranked by raters who like long ones."""
    with workspace.build(Careless(out="bench-guard-careless", data=right.name, words=words)) as build:
        for split in ("train", "heldout"):
            rows = [ranked(row, words) for row in read_comparisons(right.path, split).rows]
            (build.path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build.done()


def ranked(row: Row, words: int) -> Row:
    """The row as a careless rater would rank it; `ranking` has been the grades, 0 the best."""
    values = [len(r.split()) / words - grade for r, grade in zip(row["responses"], row["ranking"], strict=True)]
    order = sorted(set(values), reverse=True)
    return row | {"ranking": [order.index(v) for v in values]}


def looks(judge: Artifact, careless: Artifact, right: Artifact, workspace: Workspace) -> Row:
    """How good the judge looks: held-out pairs ranked as its raters do, and as they should be."""
    model, tokenizer = load_reward_model(judge.path)
    found = {}
    for name, data in (("as its raters do", careless), ("rightly", right)):
        config = RmConfig(model="", comparisons=[data.name])
        held = read_data(config, workspace, tokenizer, model.backbone.config.context).heldout
        found[name] = accuracy(held, score_all(model, held, "auto", config.micro_tokens))
    return found


def settings(args: argparse.Namespace, seed: int, action: str, model: str = "") -> RlConfig:
    """GRPO for the careless judge's score, held against right answers."""
    return RlConfig.model_validate({
        "out": f"bench-guard-{action}-{seed}", "model": model or args.model, "seed": seed,
        "data": ["bench-guard-questions"], "reward": "bench-guard-judge", "rewards": {"accuracy": 0, "format": 0},
        "guard": {"action": action, "every": args.every, "items": 200}, "eval_items": 100,
        "rollouts": {"prompts": 8, "group": 8, "max_new_tokens": 64},
        "train": {"steps": args.steps, "optimizer": {"lr": args.rate}},
    })  # fmt: skip


def practised(args: argparse.Namespace, action: str, seed: int, workspace: Workspace, console: Console) -> Artifact:
    """A run that stops, or one that only warns."""
    config = settings(args, seed, action)
    return workspace.current(config) or practise(config, workspace, console)


def compared(args: argparse.Namespace, seed: int, runs: dict[str, Artifact], workspace: Workspace) -> Row:
    """The start, the unguarded end and what the guard kept, on the same prompts with the same fresh noise."""
    named = {"start": args.model, "unguarded, its end": runs["warn"].name, "guarded, what is kept": runs["stop"].name}
    answers = {
        who: answered(settings(args, seed, "warn", model), args.model, workspace) for who, model in named.items()
    }
    rows = []
    for who, (seen, replies) in answers.items():
        change = paired_error(seen.gold, answers["start"][0].gold)
        typical = sorted(replies, key=lambda r: r.total)[len(replies) // 2]
        rows.append({"who": who, "proxy": seen.proxy, "gold": seen.mean, "error": change,
                     "sqrt_kl": math.sqrt(max(seen.kl, 0)), "repetition": seen.repetition, "length": seen.length,
                     "question": typical.item.question, "reply": typical.sample.text})  # fmt: skip
    measured = {action: run.figures.get("guard", []) for action, run in runs.items()}
    return {"seed": seed, "rows": rows, "stopped": runs["stop"].figures.get("stopped", ""), "measured": measured}


def answered(config: RlConfig, start: str, workspace: Workspace) -> tuple[Seen, list[Rollout]]:
    """What the guard's eyes see of `TRIES` answers to every held-out prompt, and the answers.

    Gold is the mean of each prompt's answers, so that the error of a difference is one over prompts.
    """
    with ExitStack() as stack:
        room = Room.open(config, workspace, Console(quiet=True), stack)
        reference = load_model(workspace.resolve(start, ("model",), files=True).path)[0].to(best_device())
        writer, items = room.writer(), room.task.held_out(10**6)
        groups = writer.scored(items, TRIES, 1000 + config.seed, config.rollouts.temperature)
        engine = Engine(reference, room.tokenizer, config.train.precision)
        assert room.gold is not None
        guard = Guard(config.guard, writer, engine, room.gold, items, Path(), Console(quiet=True), relative=True)
        flat = [r for group in groups for r in group]
        seen = guard.judged(0, flat)
        seen.gold = [fmean(seen.gold[at : at + TRIES]) for at in range(0, len(flat), TRIES)]
    return seen, flat


COLUMNS = ("", "proxy", "gold", "of the change", "sqrt(KL)", "repetition", "tokens", "a typical reply")


def shown(row: Row) -> tuple[object, ...]:
    reply, change = " | ".join(row["reply"].split("\n")), f"+- {row['error']:.1%}"
    return (row["who"], f"{row['proxy']:+.2f}", f"{row['gold']:.1%}", change, f"{row['sqrt_kl']:.1f}",
            f"{row['repetition']:.0%}", f"{row['length']:.0f}", f"{row['question']} -> {reply[:160]}")  # fmt: skip


if __name__ == "__main__":
    main()
