"""How much each method of reinforcement learning adds to one sft model, over several seeds.

    python benchmarks/rl_methods.py MODEL [-w WORKSPACE] [--methods grpo dapo ...] [--seeds 0 1 2] [--steps 30]
    # how far GRPO alone gets
    python benchmarks/rl_methods.py MODEL --methods grpo --steps 100 --prompts 48 --digits 3 3 --rate 1e-4

MODEL is a chat model of the workspace that has learned some of `synth`'s sums. Every method starts from it and
practises such sums, every seed with other problems and other samples; before and after, the same held-out
problems are answered greedily. `best-of-n` trains nothing, so its right replies are learned by `sft`; `dpo` gets
comparisons of a right with a wrong reply of the model's own. A finished run of an earlier call is taken as it is. The
interval of a row is Wilson's of one model on these problems, that of a method the standard error over the seeds.
Minutes are those on the clock and those that processors worked, which say more where others work on the same machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.rl.config import RlConfig
from llmctl.rl.measure import HeldOut
from llmctl.rl.methods import METHODS, PRESETS
from llmctl.rl.stage import Room, run
from llmctl.sft.config import SftConfig
from llmctl.sft.stage import run as sft
from llmctl.verify.statistics import wilson
from llmctl.workspace import Workspace

# AdamW's steps have the same size whatever the gradient's, so one rate does for all but those that take several updates
# on one set of roll-outs.
RATES = {"ppo": 2e-5, "gspo": 3e-5}


def main() -> None:
    args = arguments()
    workspace, console = Workspace(args.workspace), Console()
    rows = [measure(args, m, seed, workspace, console) for m in args.methods for seed in args.seeds]
    columns = ("method", "seed", "before", "95 %", "after", "95 %", "gain", "minutes", "of a core")
    console.table(f"sums, {args.items} held-out problems", columns, [shown(r) for r in rows])
    for method in args.methods:
        after = [100 * r["after"] for r in rows if r["method"] == method]
        error = statistics.stdev(after) / len(after) ** 0.5 if len(after) > 1 else float("nan")
        console.info(f"{method}: {statistics.mean(after):.1f} % +- {error:.1f} over {len(after)} seeds")
    print(json.dumps(rows, indent=2))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("-w", "--workspace", default="workspace")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--digits", type=int, nargs=2, default=[2, 3])
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--rate", type=float, help="the learning rate, in place of the method's own")
    parser.add_argument("--items", type=int, default=400)
    return parser.parse_args()


def settings(args: argparse.Namespace, method: str, seed: int, steps: int = 0, **more: Any) -> RlConfig:
    """The quickstart's problems and roll-outs, with another method."""
    rate = args.rate or RATES.get(method, 5e-5)
    steps = steps or args.steps * PRESETS[method].get("updates", 1)  # as many roll-outs for every method
    # Room behind the longest answer (44 tokens): DAPO takes rewards off what comes near the end of it.
    base = {
        "out": f"{args.model}-{method}-{seed}", "model": args.model, "seed": seed, "task": "sums",
        "sums": {"digits": args.digits}, "eval_items": args.items, "method": method,
        "rollouts": {"prompts": args.prompts, "temperature": args.temperature, "max_new_tokens": 64},
        "rewards": {"format": 0}, "train": {"steps": steps, "optimizer": {"lr": rate}},
    }  # fmt: skip
    return RlConfig.model_validate(base | more)


def measure(args: argparse.Namespace, method: str, seed: int, workspace: Workspace, console: Console) -> dict[str, Any]:
    """One run, or the finished one of an earlier call."""
    begun, worked = time.monotonic(), time.process_time()
    # dpo's own settings name comparisons, which are yet to be made.
    config = settings(args, "grpo" if method == "dpo" else method, seed, out=f"{args.model}-{method}-{seed}")
    if method in ("dpo", "best-of-n"):
        before = right(settings(args, "grpo", seed), args.model, workspace)
        make = by_comparisons if method == "dpo" else by_best_replies
        after = right(settings(args, "grpo", seed), make(args, config, workspace, console), workspace)
    else:
        found = (workspace.current(config) or run(config, workspace, console)).figures
        before, after = found["accuracy_before"], found["accuracy_after"]
    return {"method": method, "seed": seed, "items": args.items, "before": before, "after": after,
            "steps": args.steps, "minutes": (time.monotonic() - begun) / 60,
            "cpu_minutes": (time.process_time() - worked) / 60}  # fmt: skip


def by_best_replies(args: argparse.Namespace, config: RlConfig, workspace: Workspace, console: Console) -> str:
    """One right reply to each of as many problems as the other methods saw, learned by sft."""
    kept = workspace.current(config) or run(config, workspace, console)
    tuned = SftConfig.model_validate({
        "out": f"{config.out}-sft", "model": args.model, "conversations": [kept.name], "seed": config.seed,
        "epochs": 2, "eval_items": 10, "train": {"optimizer": {"name": "adamw", "lr": 1e-4}},
    })  # fmt: skip
    made = workspace.current(tuned) or sft(tuned, workspace, console)
    return made.name


def by_comparisons(args: argparse.Namespace, config: RlConfig, workspace: Workspace, console: Console) -> str:
    """A right and a wrong reply of the model's own to each problem, where it has both, learned by DPO."""
    sampler = settings(args, "grpo", config.seed)
    file = Path(workspace.root) / f"{config.out}.jsonl"
    if not file.exists():
        with ExitStack() as stack:
            room = Room.open(sampler, workspace, console, stack)
            writer = room.writer()
            pairs = []
            for turn in range(args.steps):
                items, draw = room.task.draw(turn)
                for group in writer.scored(items, 8, draw, args.temperature):
                    good, bad = [r for r in group if r.correct], [r for r in group if not r.correct]
                    if good and bad:
                        pairs.append({"prompt": good[0].item.question, "chosen": good[0].sample.text,
                                      "rejected": bad[0].sample.text})  # fmt: skip
        file.write_text("".join(json.dumps(p) + "\n" for p in pairs), encoding="utf-8")
    # Twice over its comparisons, as best-of-n's sft goes over its replies.
    steps = max(1, 2 * file.read_text(encoding="utf-8").count("\n") // args.prompts)
    tuned = settings(args, "dpo", config.seed, steps, data=[str(file)])
    return (workspace.current(tuned) or run(tuned, workspace, console)).name


def right(config: RlConfig, model: str, workspace: Workspace) -> float:
    """The share of the held-out problems that a model answers right."""
    with ExitStack() as stack:
        room = Room.open(config.model_copy(update={"model": model}), workspace, Console(), stack)
        found = HeldOut(room.writer(), room.task.held_out(config.eval_items)).measure()
    return float(found["heldout_accuracy"])


def shown(row: dict[str, Any]) -> list[str]:
    def share(p: float) -> list[str]:
        low, high = wilson(p * row["items"], row["items"])
        return [f"{p:.1%}", f"{low:.1%} to {high:.1%}"]

    gain = 100 * (row["after"] - row["before"])
    return [row["method"], str(row["seed"]), *share(row["before"]), *share(row["after"]), f"{gain:+.1f} points",
            f"{row['minutes']:.1f}", f"{row['cpu_minutes']:.1f}"]  # fmt: skip


if __name__ == "__main__":
    main()
