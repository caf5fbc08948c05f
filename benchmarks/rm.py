"""How often a reward model is right: on real comparisons, and on made ones whose rule is known.

    python benchmarks/rm.py real MODEL DATA [-w WORKSPACE] [--folds 5]
    python benchmarks/rm.py rule MODEL [-w WORKSPACE] [--count 2000] [--kinds names]

MODEL is a chat model of the workspace; for `rule` it should have learned `synth`'s names (the quickstart's `chat` has).

`real`: DATA is a file of comparisons, such as hh-rlhf's harmless-base/test.jsonl.gz. Each prompt is held out once: the
model is trained `--folds` times on the rest, so that the interval is that of all pairs and not of a small part. Where a
conversation is longer than the model's context its oldest turns are dropped; replies are never cut.

`rule`: the order of the replies is known to the code that makes them. `names`: a known fact is told and an unknown name
is not; anything else is worse, an invention worst but for nonsense. With `--kinds sums names` it is harder: in a fifth
of the pairs one has to find a wrong digit in an addition while reading it, which models of a few million parameters do
not; the table by kind shows it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from llmctl.console import Console
from llmctl.formats.comparisons import read_comparisons
from llmctl.model.folder import read_config
from llmctl.model.tokenizer import Tokenizer
from llmctl.recipe import StageSettings
from llmctl.rm.config import RmConfig
from llmctl.rm.data import render_row
from llmctl.rm.stage import run
from llmctl.synth.config import SynthConfig
from llmctl.synth.stage import run as synth
from llmctl.verify.statistics import wilson
from llmctl.workspace import Artifact, Workspace
from llmctl.workspace.files import sha256_json

Row = dict[str, Any]
ALL = 10**6


class Fold(StageSettings):
    """Comparisons with one part of the prompts held out."""

    stage: ClassVar[str] = "synth"
    makes: ClassVar[str] = "comparisons"

    data: str
    fold: int
    folds: int


def main() -> None:
    args = arguments()
    workspace, console = Workspace(args.workspace), Console()
    if args.what == "real":
        made = [trained(args, parts, workspace, console) for parts in folds(args, workspace)]
    else:
        made = [trained(args, rule(args, workspace, console), workspace, console)]
    found = pooled(made)
    columns = ("", "pairs", "right", "95 %", "choosing the longer")
    console.table(f"rm on {args.what} comparisons", columns, [shown(name, row) for name, row in found.items()])
    calibrations = [f"{m.figures['calibration']['error']:.3f}" for m in made]
    print(json.dumps({"calibration_error": calibrations, **found}, indent=2))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_subparsers(dest="what", required=True)
    real, rule = what.add_parser("real"), what.add_parser("rule")
    for one in (real, rule):
        one.add_argument("model")
        one.add_argument("-w", "--workspace", default="workspace")
        one.add_argument("--epochs", type=float, default=2.0)
        one.add_argument("--seed", type=int, default=0)
        one.add_argument("-s", dest="settings", action="append", default=[], help="e.g. loss.center=0.01")
    real.add_argument("data", type=Path)
    real.add_argument("--folds", type=int, default=5)
    rule.add_argument("--count", type=int, default=2000)
    rule.add_argument("--kinds", nargs="+", default=["names"])
    return parser.parse_args()


def folds(args: argparse.Namespace, workspace: Workspace) -> Iterator[Artifact]:
    """Artifacts of comparisons, each with another part of the prompts held out."""
    path = workspace.resolve(args.model, ("model",), files=True).path
    tokenizer, context = Tokenizer.load(path), read_config(path)["max_position_embeddings"]
    rows = [fitted(row, tokenizer, context) for row in read_comparisons(args.data).rows]
    for fold in range(args.folds):
        config = Fold(out=f"bench-rm-{fold}", data=str(args.data), fold=fold, folds=args.folds, seed=args.seed)
        with workspace.build(config) as build:
            for name, held in (("train", False), ("heldout", True)):
                part = [r for r in rows if (int(sha256_json(r["prompt"])[:8], 16) % args.folds == fold) == held]
                (build.path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
        yield build.done()


def fitted(row: Row, tokenizer: Tokenizer, context: int) -> Row:
    """The row without its oldest turns, two by two, where it would be too long; the last question stays."""
    while render_row(row, tokenizer).longest > context and len(row["prompt"]) > 2:
        row = row | {"prompt": row["prompt"][2:]}
    return row


def rule(args: argparse.Namespace, workspace: Workspace, console: Console) -> Artifact:
    """Comparisons made by code."""
    config = SynthConfig.model_validate(
        {"out": "bench-rm-rule", "mix": {"preferences": args.count}, "heldout": 1000, "seed": args.seed,
         "preferences": {"kinds": args.kinds}}
    )  # fmt: skip
    return workspace.current(config) or synth(config, workspace, console)


def trained(args: argparse.Namespace, data: Artifact, workspace: Workspace, console: Console) -> Artifact:
    """A reward model, or the finished one of an earlier call."""
    found: dict[str, Any] = {
        "out": data.name, "model": args.model, "comparisons": [data.name], "epochs": args.epochs, "seed": args.seed,
        "eval_pairs": ALL,
    }  # fmt: skip
    for key, value in (one.split("=", 1) for one in args.settings):
        at = found
        *groups, last = key.split(".")
        for group in groups:
            at = at.setdefault(group, {})
        at[last] = value
    config = RmConfig.model_validate(found)
    return workspace.current(config) or run(config, workspace, console)


def pooled(made: list[Artifact]) -> dict[str, Row]:
    """The held-out pairs of all folds together, and by kind where there is one training."""
    parts = [m.figures["heldout"] | {"longer": m.figures["longer_is_better"]} for m in made]
    if len(parts) == 1:
        kinds = made[0].figures["by_kind"]
        return {"all": parts[0]} | {k: v | {"longer": v["longer_is_better"]} for k, v in kinds.items()}
    pairs = sum(p["pairs"] for p in parts)
    right, longer = (sum(p[key] * p["pairs"] for p in parts) for key in ("accuracy", "longer"))
    low, high = wilson(round(right), pairs)
    whole = {"pairs": pairs, "accuracy": right / pairs, "low": low, "high": high, "longer": longer / pairs}
    return {"all": whole} | {f"fold {i}": p for i, p in enumerate(parts)}


def shown(name: str, row: Row) -> tuple[object, ...]:
    interval = f"{row['low']:.1%} to {row['high']:.1%}"
    return name, row["pairs"], f"{row['accuracy']:.1%}", interval, f"{row['longer']:.1%}"


if __name__ == "__main__":
    main()
