"""`eval --scaling`: the runs of a sweep become a law, a picture, and what a larger run would reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.scaling_fit import FLOPS, Law, Run, bootstrap, fit, predicted, spread
from llmctl.eval.scaling_page import write_scaling_report
from llmctl.eval.scaling_runs import enough, runs_of, split
from llmctl.report.markdown import table
from llmctl.workspace import Artifact, Workspace
from llmctl.workspace.files import write_atomic, write_json

_LOSS = {"bits_per_byte": "bits per byte", "loss": "loss, nats a token"}


def run(config: EvalConfig, workspace: Workspace, console: Console) -> Artifact:
    """Fit the law and write the report."""
    runs, notes = runs_of(config, workspace)
    for note in notes:
        console.warn(note)
    results = measured(config, runs, notes)
    with workspace.build(config) as build:
        write_json(build.path / "results.json", results)
        write_atomic(build.path / "summary.md", markdown(results))
        write_scaling_report(build.path, results)
        build.figures.update(_figures(results))
    return build.done()


def plan(config: EvalConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """The runs that would be fitted."""
    runs, notes = runs_of(config, workspace)
    fitted, held = split(runs, config.scaling.hold_back)
    enough(fitted)
    rows = [(r.name, f"{r.n:,.0f} parameters, {r.d:,.0f} tokens: {r.loss:.4g}") for r in fitted]
    rows += [("held back", f"{held.name}: {held.n:,.0f} parameters, {held.d:,.0f} tokens")] if held else []
    return rows + [("note", n) for n in notes]


def measured(config: EvalConfig, runs: list[Run], notes: list[str]) -> dict[str, Any]:
    """Everything the report says, as plain data."""
    how = config.scaling
    fitted, held = split(runs, how.hold_back)
    enough(fitted)
    law = fit(fitted)
    laws = bootstrap(fitted, how.bootstrap, config.seed)
    rest = spread(fitted, law)

    def foretold(n: float, d: float) -> dict[str, float]:
        low, high = predicted(laws, rest, n, d, config.seed)
        return {"n": n, "d": d, "flops": FLOPS * n * d, "loss": law.loss(n, d), "low": low, "high": high}

    largest = max(r.n * r.d for r in runs) * FLOPS
    budgets = how.budget or [10 * largest, 100 * largest]
    checked = None
    if held:
        told = foretold(held.n, held.d)
        checked = {**told, "name": held.name, "measured": held.loss, "error": told["loss"] / held.loss - 1}
    return {
        "format": 1,
        "mode": "scaling",
        "seed": config.seed,
        "settings": how.model_dump(mode="json"),
        "loss": "loss" if all(r.table for r in runs) else _LOSS[how.loss],
        "runs": [
            {"name": r.name, "n": r.n, "d": r.d, "loss": r.loss, "fitted": law.loss(r.n, r.d), "held_back": r is held}
            for r in runs
        ],
        "law": _coefficients(law, laws),
        "held_back": checked,
        "best": [{**foretold(*law.best(c)), **_best(laws, c)} for c in budgets],
        "predicted": [foretold(*_pair(text)) for text in how.predict],
        "exponent": _interval(law.data_exponent, [x.data_exponent for x in laws]),
        "notes": notes,
    }


def markdown(results: dict[str, Any]) -> str:
    """The law, the check and the predictions, for a terminal or a pull request."""
    lines = [law_line(results), ""]
    if held := results["held_back"]:
        lines += [held_line(held), ""]
    rows = [
        (f"{b['flops']:.3g}", _short(b["n"]), _short(b["d"]), f"{b['loss']:.4g} ({b['low']:.4g} – {b['high']:.4g})")
        for b in results["best"]
    ]
    lines.append(table(["budget, FLOPs", "best N", "best D", results["loss"]], rows))
    if results["predicted"]:
        told = [
            (_short(p["n"]), _short(p["d"]), f"{p['loss']:.4g} ({p['low']:.4g} – {p['high']:.4g})")
            for p in results["predicted"]
        ]
        lines.append(table(["N", "D", results["loss"]], told))
    return "\n".join(lines).rstrip() + "\n"


def law_line(results: dict[str, Any]) -> str:
    """The law with its numbers."""
    c = {k: v["value"] for k, v in results["law"].items()}
    runs = sum(not r["held_back"] for r in results["runs"])
    return (
        f"L(N, D) = {c['E']:.4g} + {c['A']:.4g} / N^{c['alpha']:.3f} + {c['B']:.4g} / D^{c['beta']:.3f} "
        f"({results['loss']}, {runs} runs)"
    )


def held_line(held: dict[str, Any]) -> str:
    """The check on the run that was held back."""
    inside = "inside" if held["low"] <= held["measured"] <= held["high"] else "outside"
    return (
        f"Held back: {held['name']} was predicted to end at {held['loss']:.4g} ({held['low']:.4g} to "
        f"{held['high']:.4g}) and ended at {held['measured']:.4g}, {inside} the interval; the prediction is off by "
        f"{100 * held['error']:+.2f} %."
    )


def _coefficients(law: Law, laws: Sequence[Law]) -> dict[str, dict[str, float]]:
    return {k: _interval(v, [x.coefficients()[k] for x in laws]) for k, v in law.coefficients().items()}


def _best(laws: Sequence[Law], flops: float) -> dict[str, float]:
    n = _interval(0, [x.best(flops)[0] for x in laws])
    return {"n_low": n["low"], "n_high": n["high"]}


def _interval(value: float, drawn: Sequence[float]) -> dict[str, float]:
    low, high = np.percentile(np.array(drawn), [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}


def _pair(text: str) -> tuple[float, float]:
    """`1e8:2e9` as (N, D)."""
    n, _, d = text.partition(":")
    try:
        found = float(n), float(d)
    except ValueError:
        found = (0.0, 0.0)
    if not all(0 < v < float("inf") for v in found):
        raise UserError(f"{text!r} is no run to predict", "scaling.predict", "write N:D, such as 1e8:2e9")
    return found


def _figures(results: dict[str, Any]) -> dict[str, Any]:
    """The manifest's figures."""
    held = results["held_back"]
    head: dict[str, Any] = {"label": "runs fitted", "before": None, "after": len(results["runs"]), "unit": ""}
    if held:
        label = "held-back run, foretold -> measured"
        head = {"label": label, "before": round(held["loss"], 4), "after": round(held["measured"], 4), "unit": ""}
    found = {"headline": head, "in": f"{len(results['runs'])} runs", "out": law_line(results)}
    found |= {k: float(f"{v['value']:.6g}") for k, v in results["law"].items()}
    if held:
        found["held_back_error"] = round(held["error"], 6)
    return found


def _short(value: float) -> str:
    """1.3e6 as 1.3 M."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
