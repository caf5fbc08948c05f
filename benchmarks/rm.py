"""How often a reward model is right: on real comparisons, and on made ones whose rule is known.

    python benchmarks/rm.py real MODEL DATA [-w WORKSPACE] [--folds 5] [--turns 1]
    python benchmarks/rm.py rule MODEL [-w WORKSPACE] [--count 2000] [--kinds names]

MODEL is a chat model of the workspace; for `rule` it should have learned `synth`'s names (the quickstart's `chat` has).

`real`: DATA is a file of comparisons, such as hh-rlhf's harmless-base/test.jsonl.gz. Each prompt is held out once: the
model is trained `--folds` times on the rest, so that the interval is that of all pairs and not of a small part. Where a
conversation is longer than the model's context its oldest turns are dropped; replies are never cut. `--turns 1` leaves
nothing but the last question before the replies, half of the reading. Beside it stand, on the same pairs: always the
longer reply, always the shorter one, and a logistic regression on which words stand in a reply, which knows no order
and no prompt.

`rule`: the order of the replies is known to the code that makes them. `names`: a known fact is told and an unknown name
is not; anything else is worse, an invention worst but for nonsense. With `--kinds sums names` it is harder: in a fifth
of the pairs one has to find a wrong digit in an addition while reading it, which models of a few million parameters do
not; the table by kind shows it.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl.console import Console
from llmctl.formats.comparisons import read_comparisons
from llmctl.model.folder import load_reward_model, read_config
from llmctl.model.tokenizer import Tokenizer
from llmctl.recipe import StageSettings
from llmctl.rm.config import RmConfig
from llmctl.rm.data import Ranking, read_data, render_row
from llmctl.rm.measure import Scores, accuracy, calibration, length_bias, margins_of, score_all
from llmctl.rm.stage import run
from llmctl.synth.config import SynthConfig
from llmctl.synth.stage import run as synth
from llmctl.verify.statistics import paired
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
    turns: int


def main() -> None:
    args = arguments()
    workspace, console = Workspace(args.workspace), Console()
    if args.what == "real":
        made = [trained(args, parts, workspace, console) for parts in folds(args, workspace)]
    else:
        made = [trained(args, rule(args, workspace, console), workspace, console)]
    found = pooled(made, workspace)
    columns = ("", "pairs", "right", "95 %", "choosing the longer")
    console.table(f"rm on {args.what} comparisons", columns, [shown(name, row) for name, row in found["rows"].items()])
    if args.what == "real":
        found["words"] = beside(made, workspace)
        console.info(f"a regression on words: {found['words']['accuracy']:.1%} of {found['words']['pairs']:,}")
    print(json.dumps(found, indent=2))


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
    real.add_argument("--turns", type=int, default=0, help="of the prompt, the last ones; 0 keeps all")
    rule.add_argument("--count", type=int, default=2000)
    rule.add_argument("--kinds", nargs="+", default=["names"])
    return parser.parse_args()


def folds(args: argparse.Namespace, workspace: Workspace) -> Iterator[Artifact]:
    """Artifacts of comparisons, each with another part of the prompts held out."""
    path = workspace.resolve(args.model, ("model",), files=True).path
    tokenizer, context = Tokenizer.load(path), read_config(path)["max_position_embeddings"]
    # Split by the whole prompt, before turns are left out: one conversation is on one side.
    rows = [(side(row, args.folds), fitted(row, tokenizer, context, args.turns))
            for row in read_comparisons(args.data).rows]  # fmt: skip
    for fold in range(args.folds):
        config = Fold(out=f"bench-rm-{fold}", data=str(args.data), fold=fold, folds=args.folds, turns=args.turns,
                      seed=args.seed)  # fmt: skip
        with workspace.build(config) as build:
            for name, held in (("train", False), ("heldout", True)):
                part = [row for at, row in rows if (at == fold) == held]
                (build.path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
        yield build.done()


def side(row: Row, folds: int) -> int:
    """The fold that holds a row out, by the first question: conversations that begin alike are on one side."""
    return int(sha256_json(row["prompt"][:1])[:8], 16) % folds


def fitted(row: Row, tokenizer: Tokenizer, context: int, turns: int = 0) -> Row:
    """The row without its oldest turns, two by two, where it would be too long; the last question stays."""
    row = row | {"prompt": row["prompt"][-turns:]}
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


def pooled(made: list[Artifact], workspace: Workspace) -> dict[str, Any]:
    """The held-out pairs of all folds together; and each fold, or where there is one training each kind of pair."""
    parts = [judged(m, workspace) for m in made]
    rankings = [r for held, _ in parts for r in held]
    scores = [s for _, some in parts for s in some]
    lengths = [[float(r.prompt - len(ids)) for ids in r.replies] for r in rankings]
    shorter, right = (hits(rankings, found) for found in (lengths, scores))
    rows = {"all": accuracy(rankings, scores) | length_bias(rankings, scores)}
    rows |= {"always the shorter": accuracy(rankings, lengths) | length_bias(rankings, lengths)}
    if len(made) == 1:
        rows |= made[0].figures["by_kind"]
    else:
        rows |= {f"fold {i}": accuracy(*part) | length_bias(*part) for i, part in enumerate(parts)}
        # Of each fold's own scores: only differences are learned, so those of two models have no common zero.
        rows["all"]["length_correlation"] = fmean(length_bias(*part)["length_correlation"] or 0.0 for part in parts)
    return {
        "rows": rows,
        "calibration": calibration(rankings, scores),
        "to_the_shorter": asdict(paired(shorter, right)),
    }


def judged(made: Artifact, workspace: Workspace) -> tuple[list[Ranking], Scores]:
    """The comparisons that `made` has not learned from, and its scores of them."""
    model, tokenizer = load_reward_model(made.path)
    config = RmConfig(model="", comparisons=[made.name], eval_pairs=ALL)
    held = read_data(config, workspace, tokenizer, model.backbone.config.context).heldout
    return held, score_all(model, held, config.train.precision, config.micro_tokens)


def hits(rankings: Sequence[Ranking], scores: Scores) -> list[bool]:
    """Of each pair whether it is ranked right; equal is wrong."""
    return [m > 0 for some in margins_of(rankings, scores) for m in some]


def beside(made: list[Artifact], workspace: Workspace) -> Row:
    """How many of the same held-out pairs a regression on words gets right, trained on the same folds."""
    right = pairs = 0
    for m in made:
        path = workspace.find(m.name, ["comparisons"]).path
        learned, held = (read_comparisons(path, split).rows for split in ("train", "heldout"))
        margins = by_words(learned, held)
        right, pairs = right + int((margins > 0).sum()), pairs + len(margins)
    return {"accuracy": right / pairs, "pairs": pairs}


def by_words(learned: list[Row], held: list[Row], penalty: float = 0.03) -> Tensor:
    """(held,): the log-odds, by logistic regression on words, that the better reply of each pair is preferred.

    A feature is whether a word stands in the one reply and not in the other; words of five replies or more.
    """
    counts = Counter(word for row in learned for reply in row["responses"] for word in bag(reply))
    places = {word: i for i, word in enumerate(w for w, n in counts.items() if n >= 5)}

    def features(rows: list[Row]) -> Tensor:
        found = torch.zeros(len(rows), len(places))
        for line, row in zip(found, rows, strict=True):
            for reply, rank in zip(row["responses"], row["ranking"], strict=True):
                line[[places[w] for w in bag(reply) if w in places]] += 1.0 if rank == min(row["ranking"]) else -1.0
        return found

    x, w = features(learned), torch.zeros(len(places), requires_grad=True)
    solver = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.softplus(-(x @ w)).mean() + penalty / 2 * w.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    return (features(held) @ w).detach()


def bag(reply: str) -> set[str]:
    """Its words, in small letters, and its sentence ends."""
    return set(re.findall(r"[a-z']+|[?!.]", reply.lower()))


def shown(name: str, row: Row) -> tuple[object, ...]:
    interval = f"{row['low']:.1%} to {row['high']:.1%}"
    return name, row["pairs"], f"{row['accuracy']:.1%}", interval, f"{row['longer_is_better']:.1%}"


if __name__ == "__main__":
    main()
