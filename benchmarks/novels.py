"""Bits a byte on unseen real text after the same minutes of training: our trainer beside nanochat's, in one run.

    python benchmarks/novels.py TEXTS.jsonl.gz [--nanochat FOLDER] [--minutes 9]

TEXTS: rows with `author` and `text`; the authors whose name hashes lowest are held out, so nobody is on both sides.
One vocabulary of 8,192 for all; context 256; compilation is not counted; every contender has a process of its own. Both
see the same windows in the same order, each once an epoch, under the same schedule, set by the clock: 2 % up, the
second half down.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--nanochat", default="")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--family", default="qwen3")
    parser.add_argument("--tied", action="store_true", help="ours: one table for embedding and head")
    parser.add_argument("--set", action="append", default=[], help="ours: rates other than the rules': lr=0.01")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    parser.add_argument("--data", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps({"nanochat": nanochat, "ours": ours}[given.only](given, Path(given.data))))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(prepare(given.texts, Path(folder)), flush=True)
        for name in ("nanochat", "ours") if given.nanochat else ("ours",):
            ran = [sys.executable, __file__, *sys.argv[1:], "--only", name, "--data", folder]
            done = subprocess.run(
                ran, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "NANOCHAT_DTYPE": "bfloat16"}
            )
            found = json.loads(done.stdout.splitlines()[-1])
            speed = f"{found['tokens'] / found['seconds']:,.0f} tokens/s"
            after = f"{found['tokens'] / 1e6:.1f} M tokens in {found['seconds']:.0f} s"
            print(f"{name:<9} {found['bits']:.4f} bits a byte after {after}, {speed}", flush=True)


def prepare(texts: Path, folder: Path) -> str:
    """train.npy, val.npy and bytes.npy, the bytes of text that each token stands for, by one tokenizer."""
    from llmctl.model.tokenizer import train_tokenizer

    sides: dict[bool, list[str]] = {False: [], True: []}
    with gzip.open(texts, "rt", encoding="utf-8") as f:
        for row in map(json.loads, f):
            author = str(row["author"]).encode()
            sides[hashlib.blake2b(author, digest_size=2).digest() < b"\x18"].append(row["text"])
    assert sides[True] and sides[False]
    tokenizer = train_tokenizer(iter(sides[False]), 8192, 1)
    for held, name in ((False, "train"), (True, "val")):
        ids = [i for e in tokenizer.encode_batch(sides[held]) for i in [*e, tokenizer.eos_id]]
        np.save(folder / f"{name}.npy", np.array(ids, dtype=np.uint16))
    np.save(folder / "bytes.npy", tokenizer.byte_lengths())
    held_bytes = sum(len(t.encode()) for t in sides[True])
    return f"{sum(map(len, sides[False])) / 1e6:.1f} M characters to train on, {held_bytes / 1e6:.1f} MB held out"


def rows_of(folder: Path, rows: int, seed: int) -> Any:
    """An endless stream of (rows, 257) tokens: all of the training text in random order, then again, cut elsewhere."""
    ids = np.load(folder / "train.npy", mmap_mode="r")
    generator = np.random.default_rng(seed)
    while True:
        starts = generator.integers(256) + 256 * generator.permutation((len(ids) - 257) // 256)
        for at in range(0, len(starts) - rows + 1, rows):
            yield torch.from_numpy(np.stack([ids[s : s + 257] for s in starts[at : at + rows]]).astype(np.int64))


@torch.no_grad()
def bits(losses: Any, folder: Path, most: int = 200_000) -> float:
    """Bits a byte of the first `most` held-out tokens, in rows of 256; `losses(ids, targets)` sums the loss in nats.

    Ends of text count in the loss and have no bytes: a few in a hundred thousand tokens.
    """
    ids = np.load(folder / "val.npy")[:most].astype(np.int64)
    whole = (len(ids) - 1) // 256 * 256
    inputs, targets = (torch.from_numpy(ids[i : i + whole]).view(-1, 256) for i in (0, 1))
    total = sum(float(losses(x, y)) for x, y in zip(inputs.split(16), targets.split(16), strict=True))
    return total / math.log(2) / int(np.load(folder / "bytes.npy")[targets].sum())


def schedule(share: float) -> float:
    """The learning rate at a share of the time: 2 % up, half of it down to nothing."""
    return min(1.0, share / 0.02, (1 - share) / 0.5)


def ours(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    from llmctl.model.config import dial
    from llmctl.model.transformer import Transformer
    from llmctl.pretrain.config import PretrainConfig
    from llmctl.pretrain.rules import derive
    from llmctl.train.batch import Batch
    from llmctl.train.compiling import as_trained
    from llmctl.train.device import autocast
    from llmctl.train.loss import lm_loss
    from llmctl.train.memory import keep
    from llmctl.train.optimizer import Optimizer

    torch.manual_seed(0)
    shape = dial(given.depth, 8192, 256, family=given.family, tie_embeddings=given.tied)
    model = Transformer(shape)
    sets: dict[str, Any] = {key: float(value) for key, value in (s.split("=") for s in given.set)}
    config = PretrainConfig.model_validate(
        {"tokens": "novels", "batch_tokens": given.rows * 256, "train": {"optimizer": sets}}
    )
    keep()
    derived = derive(config, shape, len(np.load(folder / "train.npy", mmap_mode="r")))
    optimizer, forward = Optimizer(model, derived.optimizer), as_trained(model)
    cpu = torch.device("cpu")

    def step(ids: torch.Tensor, rate: float) -> None:
        batch = Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), torch.ones(len(ids), 256))
        with autocast("bf16", cpu):
            loss = lm_loss(forward, batch)
        loss.total.backward()
        torch._foreach_mul_([p.grad for p in optimizer.params if p.grad is not None], 1 / batch.tokens)
        optimizer.step(rate)

    def losses(ids: torch.Tensor, targets: torch.Tensor) -> float:
        with autocast("bf16", cpu):
            return float(lm_loss(model, Batch(ids, targets, torch.ones(ids.shape))).total)

    return race(given, folder, step, lambda: bits(losses, folder))


def nanochat(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    sys.path.insert(0, given.nanochat)
    from nanochat.gpt import GPT, GPTConfig

    width = 64 * given.depth
    with torch.device("meta"):
        model = GPT(GPTConfig(256, 8192, given.depth, given.depth, given.depth, width, "L"))
    model.to_empty(device="cpu")
    model.init_weights()
    optimizer, forward = model.setup_optimizer(), torch.compile(model, dynamic=False)

    def step(ids: torch.Tensor, rate: float) -> None:
        forward(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()).backward()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * rate
        optimizer.step()
        model.zero_grad(set_to_none=True)

    return race(given, folder, step, lambda: bits(lambda i, t: model(i, t, loss_reduction="sum"), folder))


def race(given: argparse.Namespace, folder: Path, step: Any, measure: Any) -> dict[str, float]:
    """Train for the minutes given, the schedule by the clock, after two steps at rate 0 that compile."""
    stream = rows_of(folder, given.rows, 0)
    for _ in range(3):
        step(next(stream), 0.0)
    begun, count, whole = time.perf_counter(), 0, given.minutes * 60
    while (spent := time.perf_counter() - begun) < whole:
        step(next(stream), schedule(spent / whole))
        count += 1
    seconds = time.perf_counter() - begun
    return {"bits": measure(), "tokens": count * given.rows * 256, "seconds": seconds}


if __name__ == "__main__":
    main()
