"""A GRPO step: how long it takes, where the time goes, how much memory it needs; TRL's beside it where it is installed.

    python benchmarks/rl_step.py [--parameters 20] [--replies 64] [--group 8] [--new-tokens 64] [--precision auto fp32]

A random model of about so many million parameters answers sums (prompts of equal text for both), every reply runs to
its last token (the model never ends by itself), and the reward is the count of one letter, so that every group has a
spread. `--shortest` lets ours end anywhere from there on, `--method` takes another method than GRPO. The first step
warms up and is not counted; the numbers are medians of `--steps` others. `update_cpu_s` is the processor's time for
forward, backward and optimizer, which does not depend on what else the machine does. TRL gets the same
weights, tokenizer, prompts, group and lengths through `transformers`, one optimizer step a roll-out, no KL, as here.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

PROMPTS = [f"What is {a} + {b}?" for a in range(11, 99, 3) for b in range(12, 99, 7)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parameters", type=float, default=20, help="millions")
    parser.add_argument("--replies", type=int, default=64)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["auto", "fp32"])
    parser.add_argument("--compile", action="store_true", help="ours: compile the update")
    parser.add_argument("--method", default="grpo", help="ours")
    parser.add_argument("--shortest", type=int, help="ours: replies of this many tokens to --new-tokens, evenly")
    parser.add_argument("--only", choices=("llmctl", "trl"))
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a single measurement, in this process
    args = parser.parse_args()
    if args.one:
        who, precision, folder = args.one.split(",")
        print(json.dumps({"llmctl": ours, "trl": theirs}[who](args, precision, Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "model", args)
        who = [w for w in ("llmctl", "trl") if w == (args.only or w) and (w == "llmctl" or find_spec("trl"))]
        rows = [measured(w, p, folder) for p in args.precision for w in who]
    for row in rows:
        print(json.dumps(row))
    if "trl" not in who and args.only != "llmctl":
        print("TRL is not installed here (pip install trl, in a venv of its own)", file=sys.stderr)


def measured(who: str, precision: str, folder: str) -> dict[str, Any]:
    """One measurement in a process of its own, for its memory."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", f"{who},{precision},{folder}"]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode:
        return {"who": who, "precision": precision, "failed": done.stderr.strip().splitlines()[-1:]}
    return {"who": who, "precision": precision, **json.loads(done.stdout.splitlines()[-1])}


def make_model(folder: Path, args: argparse.Namespace) -> None:
    """A random model of about the wanted size, with a tokenizer of bytes and the chat tokens."""
    import torch

    from llmctl.model.config import ModelConfig
    from llmctl.model.folder import save_model
    from llmctl.model.tokenizer import train_tokenizer
    from llmctl.model.transformer import Transformer

    tokenizer = train_tokenizer(iter([" ".join(PROMPTS)] * 3), 4096)
    vocab, depth = 4096, 8
    width = 64
    while (2 * vocab * width + depth * 12 * width * width) < args.parameters * 1e6:
        width += 64
    torch.manual_seed(0)
    shape = ModelConfig(vocab, layers=depth, width=width, heads=width // 64, kv_heads=width // 64, head_dim=64,
                        mlp_width=width * 8 // 3 // 64 * 64, context=512)  # fmt: skip
    save_model(folder, Transformer(shape), tokenizer)


def ours(args: argparse.Namespace, precision: str, folder: Path) -> dict[str, Any]:
    """Steps of our loop."""
    from llmctl.console import Console
    from llmctl.generate.engine import Sample
    from llmctl.rl import rollouts
    from llmctl.rl.config import RlConfig
    from llmctl.rl.rewards import Rewards
    from llmctl.rl.stage import run
    from llmctl.train import loop
    from llmctl.workspace import Workspace

    scoring: list[float] = []
    updates: list[float] = []
    update = loop._Run.update
    rng = random.Random(0)

    def timed(*given: Any) -> Any:
        begun = time.process_time()
        found = update(*given)
        updates.append(time.process_time() - begun)
        return found

    loop._Run.update = timed  # type: ignore[method-assign]

    def shortened(sample: Sample) -> Sample:
        n = rng.randint(args.shortest, args.new_tokens)
        return Sample(sample.ids[:n], sample.forced[:n], sample.logprobs[:n], sample.finish, sample.text)

    def score(self: Rewards, found: Any) -> None:
        begun = time.monotonic()
        for r in found:
            r.sample = shortened(r.sample) if args.shortest else r.sample
            r.parts, r.total = {}, float(r.sample.text.count("1"))
        scoring.append(time.monotonic() - begun)

    Rewards.score = score  # type: ignore[method-assign]
    # Every reply runs to its last token: no token ends it, as for TRL below.
    rollouts.Sampling = _never_ending(rollouts.Sampling)  # type: ignore[misc]
    config = RlConfig.model_validate({
        "model": str(folder / "model"), "out": f"step-{precision}", "eval_items": 1, "show_every": 0,
        "method": args.method,
        "rollouts": {"prompts": args.replies // args.group, "group": args.group, "max_new_tokens": args.new_tokens},
        "train": {"steps": args.steps + 1, "precision": precision, "compile": args.compile, "save_minutes": 1e6},
    })  # fmt: skip
    made = run(config, Workspace(folder / "w"), Console(quiet=True))
    rows = made.metrics()
    steps = [r for r in rows if "rollout_s" in r][1:]
    clock = [r["seconds"] for r in rows if "loss" in r]
    whole = [b - a for a, b in pairwise(clock)]
    middle = statistics.median
    return {"step_s": middle(whole), "rollout_s": middle(r["rollout_s"] for r in steps), "scoring_s": middle(scoring),
            "update_s": middle(whole) - middle(r["rollout_s"] for r in steps), "update_cpu_s": middle(updates[1:]),
            "tokens": steps[-1]["rollout_tokens"], **memory()}  # fmt: skip


def _never_ending(sampling: Any) -> Any:
    def make(**how: Any) -> Any:
        return sampling(**{**how, "stop_ids": ()})

    return make


def theirs(args: argparse.Namespace, precision: str, folder: Path) -> dict[str, Any]:
    """Steps of TRL's GRPOTrainer with the same model, prompts and lengths."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    model.generation_config.eos_token_id = None
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.monotonic())

    config = GRPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=args.replies, num_generations=args.group,
        max_completion_length=args.new_tokens, max_steps=args.steps + 1, beta=0.0, temperature=1.0, top_k=0,
        use_cpu=not torch.cuda.is_available(), bf16=precision != "fp32", save_strategy="no", report_to=[],
        gradient_checkpointing=False,
        generation_kwargs={"min_new_tokens": args.new_tokens}, logging_steps=1000,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model, reward_funcs=lambda completions, **_: [float(c.count("1")) for c in completions], args=config,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}), processing_class=tokenizer, callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    gaps = [b - a for a, b in pairwise(ends)]
    return {"step_s": statistics.median(gaps), "tokens": args.replies * args.new_tokens, **memory()}


def memory() -> dict[str, float]:
    """The most that this process has held, in MB; on a GPU, of its memory too."""
    found = {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}
    import torch

    if torch.cuda.is_available():
        found["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
    return found


if __name__ == "__main__":
    main()
