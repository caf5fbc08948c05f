"""Training steps of our trainer beside nanochat's, at the same shape, context and batch, in one run.

    python benchmarks/training_speed.py --nanochat FOLDER [--seconds 30]

FOLDER: a checkout of github.com/karpathy/nanochat (left out: ours alone). Each contender has a process of its own, one
after the other: model, optimizer, torch.compile or kernels as its own training sets them up, random tokens, steps for
`--seconds` after compilation and three warm steps. MFU is against the rate of a 2048 x 2048 matrix product in bfloat16,
measured in the same process; FLOPs a token are 6 a weight in a matrix product and 12 x layers x width x context.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanochat", default="")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(CONTENDERS[given.only](given)))
        return
    print(
        f"depth {given.depth}, width {64 * given.depth}, vocabulary {given.vocab}, {given.rows} rows of {given.context}"
    )
    print(f"{'':<28} {'tokens/s':>9} {'MFLOP/token':>12} {'TFLOP/s':>8} {'MFU':>6} {'compile':>8}")
    for name in CONTENDERS:
        if name.startswith("nanochat") and not given.nanochat:
            continue
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--only", name], capture_output=True, text=True,
            env={**os.environ, "NANOCHAT_DTYPE": "bfloat16" if "bf16" in name else "float32"},
        )  # fmt: skip
        if done.returncode:
            print(f"{name:<28} failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        rate = found["tokens"] * found["flops"]
        print(
            f"{name:<28} {found['tokens']:>9,.0f} {found['flops'] / 1e6:>12.1f} {rate / 1e12:>8.2f} "
            f"{rate / found['peak']:>6.0%} {found['compile']:>7.0f}s"
        )


def timed(given: argparse.Namespace, step: Callable[[], None], flops: float) -> dict[str, float]:
    """Tokens a second of `step`, which trains on rows x context tokens."""
    begun = time.perf_counter()
    step()
    compile_seconds = time.perf_counter() - begun
    for _ in range(3):
        step()
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < given.seconds:
        step()
        count += 1
    rate = count * given.rows * given.context / (time.perf_counter() - begun)
    from llmctl.train.peak import matmul_rate

    return {"tokens": rate, "flops": flops, "compile": compile_seconds, "peak": matmul_rate("bf16", 2048)}


def ours(given: argparse.Namespace, family: str) -> dict[str, float]:
    import torch

    from llmctl.model.config import dial
    from llmctl.model.transformer import Transformer
    from llmctl.train.batch import Batch
    from llmctl.train.compiling import as_trained
    from llmctl.train.device import autocast, best_device
    from llmctl.train.loss import lm_loss
    from llmctl.train.memory import keep
    from llmctl.train.optimizer import Optimizer
    from llmctl.train.settings import OptimizerSettings

    device = best_device()
    shape = dial(given.depth, given.vocab, given.context, family=family)  # type: ignore[arg-type]
    model = Transformer(shape).to(device)
    keep()
    optimizer, forward = Optimizer(model, OptimizerSettings()), as_trained(model)
    ids = torch.randint(given.vocab, (given.rows, given.context + 1), device=device)
    batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.ones(ids[:, 1:].shape, device=device))

    def step() -> None:
        with autocast("bf16", device):
            loss = lm_loss(forward, batch)
        loss.total.backward()
        for p in optimizer.params:
            if p.grad is not None:
                p.grad.div_(batch.tokens)
        optimizer.step(1.0)
        float(loss.total.detach())

    return timed(given, step, shape.flops_per_token(given.context))


def nanochat(given: argparse.Namespace) -> dict[str, float]:
    sys.path.insert(0, given.nanochat)
    import torch
    from nanochat.gpt import GPT, GPTConfig

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width = 64 * given.depth
    shape = GPTConfig(given.context, given.vocab, given.depth, max(1, width // 64), max(1, width // 64), width, "L")
    with torch.device("meta"):
        model = GPT(shape)
    model.to_empty(device=device)
    model.init_weights()
    optimizer, forward = model.setup_optimizer(), torch.compile(model, dynamic=False)
    ids = torch.randint(given.vocab, (given.rows, given.context + 1), device=device)

    def step() -> None:
        loss = forward(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        float(loss.detach())

    return timed(given, step, model.estimate_flops())


CONTENDERS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "nanochat, as it comes": nanochat,
    "nanochat, bf16": nanochat,
    "llmctl, qwen3": lambda given: ours(given, "qwen3"),
    "llmctl, nanochat shape": lambda given: ours(given, "nanochat"),
}

if __name__ == "__main__":
    main()
