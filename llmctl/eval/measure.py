"""Measuring one model after the other. What is finished is kept, so that a kill does not cost it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.eval.asking import Row, ask
from llmctl.eval.config import EvalConfig
from llmctl.eval.core import ask_core, core_scores
from llmctl.eval.harness import harness_rows
from llmctl.eval.losses import loss_scores, measure_loss
from llmctl.eval.pairs import cut_note, measure_pairs
from llmctl.eval.questions import PAIRS
from llmctl.eval.scores import scores, share
from llmctl.eval.subjects import Subject
from llmctl.eval.task_run import ask_task
from llmctl.eval.task_scores import task_scores
from llmctl.eval.work import Work
from llmctl.generate.engine import Engine
from llmctl.model.folder import load_model, load_reward_model
from llmctl.tools.search import SearchIndex
from llmctl.tools.toolbox import Toolbox
from llmctl.train.device import best_device
from llmctl.workspace.files import write_json


@dataclass
class Measured:
    """The scores in the order of the models, and the rows behind them by the model's label."""

    scores: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, list[Row]] = field(default_factory=dict)
    pairs: dict[str, list[Row]] = field(default_factory=dict)
    texts: dict[str, list[Row]] = field(default_factory=dict)
    """Rows that are neither right nor wrong here: whole texts, and what lm-evaluation-harness judged."""
    notes: list[str] = field(default_factory=list)
    """What turned up while measuring that a reader of the scores should know."""


def measure(config: EvalConfig, work: Work, scratch: Path, console: Console) -> Measured:
    """Measure every model of `work`."""
    found = Measured()
    search = SearchIndex.build(work.questions.documents) if config.search and work.questions.documents else None
    toolbox = Toolbox(search, config.python)
    if off := toolbox.off():
        console.warn(off)
    for subject in work.subjects:
        kept = scratch / subject.reference["digest"][:24]
        if subject.rewards:
            _judge(subject, work, kept, console, found)
        else:
            _examine(subject, work, config, toolbox, kept, console, found)
    return found


class _Loaded:
    """A model that is loaded when it is first needed: what was finished before a kill needs none."""

    def __init__(self, subject: Subject, precision: str) -> None:
        self.subject, self.precision = subject, precision

    @cached_property
    def model(self) -> tuple[Any, Any]:
        """(model, tokenizer)."""
        model, tokenizer = load_model(self.subject.path)
        return model.to(best_device()), tokenizer

    def engine(self) -> Engine:
        """An engine over the model."""
        return Engine(*self.model, precision=self.precision)


def _examine(
    subject: Subject, work: Work, config: EvalConfig, tools: Toolbox, kept: Path, console: Console, found: Measured
) -> None:
    """A model that writes: its answers, and its bits per byte."""
    loaded = _Loaded(subject, config.precision)
    items = work.questions.items
    if items and subject.askable:
        with console.progress(f"eval {subject.label}", len(items), "items") as bar:
            rows = ask(loaded.engine, items, tools, config, kept, bar)
        found.answers[subject.label] = rows
        found.scores += scores(subject.label, rows)
    _tasks(subject, loaded, work, config, tools, kept, console, found)
    if work.tokens is None:
        return
    tokens = work.tokens
    documents: list[Row] = _once(
        kept / "losses.json",
        lambda: measure_loss(*loaded.model, tokens, config.loss_tokens, config.precision, kept / "encoded"),
    )
    found.texts.setdefault(subject.label, []).extend(documents)
    found.scores += loss_scores(subject.label, documents, config.seed)


def _tasks(
    subject: Subject,
    loaded: _Loaded,
    work: Work,
    config: EvalConfig,
    tools: Toolbox,
    kept: Path,
    console: Console,
    found: Measured,
) -> None:
    """Task files, CORE, and the harness's own tasks."""
    mine = found.answers.setdefault(subject.label, []) if work.tasks or work.core else []
    for task in work.tasks:
        runner = tools if config.python or tools.search else None
        with console.progress(f"eval {subject.label} {task.name}", len(task.documents), "items") as bar:
            rows = ask_task(loaded.engine, task, runner, config, kept, bar)
        found.scores += task_scores(subject.label, task.task, [r["metrics"] for r in rows], config.seed)
        (mine if rows[0]["correct"] is not None else found.texts.setdefault(subject.label, [])).extend(rows)
    if work.core:
        with console.progress(f"eval {subject.label} CORE", work.core.items, "items") as bar:
            rows = ask_core(loaded.engine, work.core, kept, bar)
        found.scores += core_scores(subject.label, work.core, rows, config.seed)
        mine += rows
    if config.harness:
        made, items = harness_rows(loaded.engine, subject.label, config)
        found.scores += made
        found.texts.setdefault(subject.label, []).extend(row for rows in items.values() for row in rows)


def _judge(subject: Subject, work: Work, kept: Path, console: Console, found: Measured) -> None:
    """A model that scores: the pairs it orders as they should be."""
    if not work.pairs:
        return
    with console.progress(f"eval {subject.label}", len(work.pairs), "pairs") as bar:

        def judged() -> list[Row]:
            model, tokenizer = load_reward_model(subject.path)
            return measure_pairs(model.to(best_device()), tokenizer, work.pairs, bar)

        rows: list[Row] = _once(kept / "pairs.json", judged)
    found.pairs[subject.label] = rows
    found.notes += cut_note(subject.label, sum(r.get("cut", False) for r in rows), f"{len(rows):,} pairs")
    found.scores.append(share(subject.label, PAIRS, sum(r["correct"] for r in rows), len(rows)))


def _once(path: Path, make: Callable[[], Any]) -> Any:
    """What `make` gives, kept in a file."""
    if not path.exists():
        write_json(path, make())
    return json.loads(path.read_text(encoding="utf-8"))
