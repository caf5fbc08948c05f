"""The runs of a sweep: from the manifests of the models it made, or from a table of somebody else's."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.scaling_fit import FEWEST, FLOPS, Run, varied
from llmctl.formats.json_rows import Skipped, read_rows
from llmctl.workspace import Artifact, Foreign, Workspace

# What a column of a table may be called, in lower case and without spaces and underscores.
_COLUMNS = {
    "n": ("n", "parameters", "params", "modelsize"),
    "d": ("d", "tokens", "trainingtokens"),
    "flops": ("c", "flops", "flop", "trainingflop", "trainingflops"),
    "loss": ("loss", "bitsperbyte", "bpb"),
    "name": ("name", "run", "model"),
}
# Up to here repeated text is nearly as good as new (arXiv 2305.16264); the law knows only new text.
_EPOCHS = 4.0


def runs_of(config: EvalConfig, workspace: Workspace) -> tuple[list[Run], list[str]]:
    """The runs, and notes on what makes them less comparable. UserError where they cannot settle a law."""
    found: list[Run] = []
    notes: list[str] = []
    texts: set[str] = set()
    for value in config.models:
        source = workspace.resolve(value, ("model",), files=True)
        if isinstance(source, Foreign):
            found += _table(source.path)
            continue
        found.append(_run(source, config))
        epochs = float(source.figures.get("epochs") or 0)
        if epochs > _EPOCHS + 0.05:
            notes.append(
                f"{source.name} went {epochs:.1f} times through its text: repeated text is worth less than new"
            )
        texts |= {str(i.get("digest")) for i in source.manifest.get("inputs") or [] if i.get("kind") == "tokens"}
    if len(texts) > 1:
        notes.append("the runs were trained and measured on different tokens: their losses may not compare")
    twice = {r.name for r in found if sum(r.name == o.name for o in found) > 1}
    if twice and all(r.name for r in found):
        notes.append(f"named more than once: {', '.join(sorted(twice))}")
    return found, notes


def enough(runs: list[Run]) -> None:
    """UserError unless `runs` can settle the law."""
    if not varied(runs):
        sizes, amounts = len({r.n for r in runs}), len({r.d for r in runs})
        raise UserError(
            f"{len(runs)} runs of {sizes} sizes on {amounts} amounts of data cannot settle a law of five coefficients",
            fix=f"give {FEWEST} runs or more, of three sizes and on three amounts of data at least: llmctl run sweep",
        )


def split(runs: list[Run], hold_back: str) -> tuple[list[Run], Run | None]:
    """The runs to fit, and the one to predict. UserError where no run has that name."""
    if not hold_back:
        return runs, None
    named = [r for r in runs if r.name == hold_back]
    if hold_back != "largest" and not named:
        raise UserError(f"no run is called {hold_back!r}", "scaling.hold_back", "give `largest`, or a run's name")
    held = named[0] if named else max(runs, key=lambda r: r.n * r.d)
    return [r for r in runs if r is not held], held


def _run(model: Artifact, config: EvalConfig) -> Run:
    """A pretrained model as a run."""
    made, figures = model.manifest, model.figures
    if made.get("stage") != "pretrain" or made["settings"].get("init"):
        raise UserError(
            f"model {model.name!r} is no run of its own: it goes on from another model",
            fix="a scaling law is fitted to models that `pretrain` trained from nothing",
        )
    key = "bits_per_byte_after" if config.scaling.loss == "bits_per_byte" else "loss_last"
    if figures.get(key) is None:
        raise UserError(f"model {model.name!r} has no {key}", fix="hold text out when tokenizing, or fit `loss`")
    n = figures["parameters"] if config.scaling.embeddings else _without_embeddings(model)
    return Run(model.name, float(n), float(figures["tokens"]), float(figures[key]))


def _without_embeddings(model: Artifact) -> int:
    from llmctl.model.config import ModelConfig

    path = model.file("config.json")
    return ModelConfig.from_hf(json.loads(path.read_text(encoding="utf-8")), str(path)).parameters(embeddings=False)


def _table(path: Path) -> list[Run]:
    """The rows of a CSV or JSONL file with columns for N, D (or 6 N D) and the loss."""
    found: list[Run] = []
    for where, row in _rows(path):
        values = {"".join(k.lower().replace("_", " ").split()): v for k, v in row.items() if k}
        cells = {key: next((values[n] for n in names if n in values), None) for key, names in _COLUMNS.items()}
        try:
            n, loss = float(cells["n"] or ""), float(cells["loss"] or "")
            d = float(cells["d"]) if cells["d"] else float(cells["flops"] or "") / FLOPS / n
            good = all(0 < v < float("inf") for v in (n, d, loss))
        except (ValueError, ZeroDivisionError):
            good = False
        if not good:
            raise UserError(
                "a run needs its parameters, its tokens (or its FLOPs) and its loss, above 0",
                where,
                "name the columns: parameters, tokens, loss",
            )
        found.append(Run(str(cells["name"] or f"row {len(found) + 1}"), n, d, loss, table=True))
    return found


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.is_dir():
        raise UserError("a folder is no table of runs", str(path), "give models of the workspace, or a CSV file")
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from ((f"{path}:{i}", row) for i, row in enumerate(csv.DictReader(file), 2))
        return
    for row in read_rows(path):
        if isinstance(row, Skipped):
            raise UserError(row.why, f"{path}:{row.line}")
        yield f"{path}:{row.line}", row.value
