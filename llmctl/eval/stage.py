"""`eval`: gather what may be measured, measure it, write the report."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.eval.asking import Row
from llmctl.eval.config import EvalConfig
from llmctl.eval.lineage import lineage
from llmctl.eval.measure import Measured, measure
from llmctl.eval.page import write_report
from llmctl.eval.scores import comparisons, figures, headline
from llmctl.eval.summary import markdown
from llmctl.eval.work import Work, gather
from llmctl.workspace import Artifact, Workspace
from llmctl.workspace.files import write_atomic, write_json

# Of the settings those that say nothing about a measurement on tasks.
_NOT_HERE = {"seed", "mode", "arena", "scaling"}
# Floating-point operations a weight and new token: 2 for the products, the rest for attention over a short context.
_FLOPS = 2.5


def run(config: EvalConfig, workspace: Workspace, console: Console) -> Artifact:
    """Measure the models and write the report."""
    if other := _other(config):
        return other.run(config, workspace, console)
    work = gather(config, workspace)
    for note in work.notes:
        console.warn(note)
    with workspace.build(config) as build:
        found = measure(config, work, build.scratch, console)
        for note in found.notes:
            console.warn(note)
        results = _results(config, work, found)
        _write_items(build.path / "items", _items(found))
        write_json(build.path / "results.json", results)
        write_atomic(build.path / "summary.md", markdown(results))
        write_report(build.path, results, found.answers, found.pairs, _runs(work, workspace))
        build.figures.update(figures(results))
    return build.done()


def plan(config: EvalConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What would be measured, and at most how much writing that is."""
    if other := _other(config):
        return other.plan(config, workspace)
    work = gather(config, workspace)
    rows = [
        (s.label, f"{s.parameters:,} parameters" + (", a reward model" if s.rewards else "")) for s in work.subjects
    ]
    if work.writers and work.questions.items:
        rows += [("items: " + task, f"{n:,}") for task, n in work.questions.per_task().items()]
        rows.append(("items from", "; ".join(work.questions.sources)))
        most = len(work.questions.items) * config.max_new_tokens
        flops = sum(_FLOPS * s.parameters * most for s in work.writers)
        rows.append(("tokens to write", f"{most:,} a model at most ({flops:.2g} FLOPs in all)"))
    rows += [(f"task: {t.name}", f"{len(t.documents):,} items, {t.num_fewshot} examples") for t in work.tasks]
    if work.core:
        rows.append(("task: core", f"{work.core.items:,} items of {len(work.core.tasks)} tasks"))
    if config.harness:
        rows.append(("lm-evaluation-harness", ", ".join(config.harness)))
    if work.tokens:
        rows.append(("bits per byte", f"on {config.loss_tokens:,} tokens of {work.tokens.name} at most"))
    if work.pairs:
        rows.append(("pairs of answers", f"{len(work.pairs):,}"))
    return rows + [("note", note) for note in work.notes]


def _other(config: EvalConfig) -> Any:
    """The module that does another mode's work."""
    return None if config.mode == "tasks" else import_module(f"llmctl.eval.{config.mode}")


def _results(config: EvalConfig, work: Work, found: Measured) -> dict[str, Any]:
    """Everything but the items themselves. No times and no paths: the same measurement gives the same bytes."""
    facts = [s.facts() for s in work.subjects]
    inputs = {name for name, _ in config.input_fields()}
    settings = {k: v for k, v in config.recorded(fingerprint=True).items() if k not in inputs | _NOT_HERE}
    items = work.questions
    return {
        "format": 1,
        "seed": config.seed,
        "settings": settings,
        "headline": headline(facts, found.scores),
        "models": facts,
        "data": {
            "items": {"count": len(items.items), "sha256": items.digest, "sources": items.sources},
            "tokens": work.tokens.reference() if work.tokens else None,
            "comparisons": [c.reference() for c in work.comparisons],
            "tasks": [task.facts() for task in work.tasks],
            "core": {"items": work.core.items, "sha256": work.core.sha256} if work.core else None,
        },
        "scores": found.scores,
        "paired": comparisons(_items(found), found.scores, config.seed),
        "notes": work.notes + found.notes,
    }


def _items(found: Measured) -> dict[str, list[Row]]:
    """Every row of each model, whatever it was asked."""
    labels = dict.fromkeys([*found.answers, *found.pairs, *found.texts])
    return {m: [r for rows in (found.answers, found.pairs, found.texts) for r in rows.get(m, [])] for m in labels}


def _write_items(folder: Path, rows: dict[str, list[Row]]) -> None:
    for label, mine in rows.items():
        write_atomic(folder / f"{label}.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in mine))


def _runs(work: Work, workspace: Workspace) -> list[tuple[str, list[Row]]]:
    """(title, metrics rows) of every training run behind the models, oldest first."""
    made = [workspace.find(s.reference["name"], ["model"]) for s in work.subjects if s.reference["kind"] == "model"]
    trained = [a for a in lineage(workspace, made).of_kind("model") if a.metrics()]
    trained.sort(key=lambda a: str(a.manifest.get("started")))
    return [(f"{a.manifest.get('stage')} {a.name}", a.metrics()) for a in trained]
