"""Which rule drops which document, from the measured values alone: in seconds, however long it took to measure them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from llmctl.filter.counts import Counts
from llmctl.filter.row import Rule, Scorer


@dataclass(frozen=True)
class Column:
    """A rule of a step, in the order in which they apply: a column of the table of values."""

    step: str
    rule: Rule

    @property
    def name(self) -> str:
        """`step.rule`, as it is called in every table."""
        return f"{self.step}.{self.rule.name}"


def columns_of(scorers: Iterable[Scorer]) -> list[Column]:
    """The columns of all steps."""
    return [Column(scorer.name, rule) for scorer in scorers for rule in scorer.rules]


@dataclass(frozen=True)
class Decision:
    """failing (documents, rules) bool; first (documents,) the index of the first failing rule, -1 where none fails."""

    columns: Sequence[Column]
    failing: np.ndarray
    first: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """The indices of the documents that no rule drops."""
        return np.flatnonzero(self.first < 0)

    def rules(self, document: int) -> list[str]:
        """The names of all rules that drop a document."""
        return [self.columns[int(i)].name for i in np.flatnonzero(self.failing[document])]


def decide(columns: Sequence[Column], values: np.ndarray) -> Decision:
    """`values` (documents, rules) float64, NaN where a rule does not apply."""
    failing = np.zeros(values.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        for i, column in enumerate(columns):
            failing[:, i] = column.rule.fails(values[:, i])
    first = np.where(failing.any(axis=1), failing.argmax(axis=1), -1) if len(columns) else np.full(len(values), -1)
    return Decision(columns, failing, first)


@dataclass(frozen=True)
class Sizes:
    """Bytes of every document, shape (documents,) int64: as it was read, of its text, of the text that C4 left."""

    read: np.ndarray
    text: np.ndarray
    clean: np.ndarray

    def after(self, step: str, steps: Sequence[str]) -> np.ndarray:
        """The sizes behind a step of `steps`."""
        if step == "url":
            return self.read
        cleaned = "c4" in steps and steps.index(step) >= steps.index("c4")
        return self.clean if cleaned else self.text


def funnel(counts: Counts, decision: Decision, sizes: Sizes) -> None:
    """Add what the steps did to the documents of a shard to `counts`."""
    steps = list(dict.fromkeys(column.step for column in decision.columns))
    of_rule = np.array([steps.index(column.step) for column in decision.columns], dtype=int)
    ended = np.where(decision.first < 0, len(steps), of_rule[decision.first]) if len(of_rule) else decision.first
    counts.read(len(sizes.read), int(sizes.read.sum()))
    for number, step in enumerate(steps):
        passed = ended > number
        counts.passed(step, int(sizes.after(step, steps)[passed].sum()), int(passed.sum()))
    for rule, documents in zip(*np.unique(decision.first[decision.first >= 0], return_counts=True), strict=True):
        column = decision.columns[int(rule)]
        counts.dropped(column.step, column.rule.name, int(documents))
