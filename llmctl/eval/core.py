"""CORE: the mean centred accuracy over the in-context tasks of a bundle, as DCLM defines it (arXiv 2406.11794) and
nanochat computes it, so that figures compare with theirs.

A bundle is a folder with `core.yaml` (the tasks), `eval_data/` (JSON Lines) and `eval_meta_data.csv` (what guessing
gets). DCLM's has 22 tasks; a small one of our own comes along, for machines without it. Centred is
(accuracy - guessing) / (1 - guessing): 0 is luck, 1 is everything.

    multiple_choice      which choice behind the query has the highest mean log-probability a token
    schema               which of the contexts makes the one continuation likeliest, by the same mean
    language_modeling    whether each token of the continuation is the likeliest one
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from llmctl.console import Progress
from llmctl.errors import UserError
from llmctl.eval.task_scores import share_of
from llmctl.formats.json_rows import Skipped, read_rows
from llmctl.generate.engine import Engine
from llmctl.generate.scoring import Likelihood, Scored, common_length
from llmctl.model.tokenizer import Tokenizer
from llmctl.recipe import Settings
from llmctl.recipe.check import checked
from llmctl.recipe.source import read
from llmctl.workspace.files import sha256_json, write_json

CORE = "core"
OWN = Path(__file__).with_name("bundle")
Row = dict[str, Any]
_PART = 256
# nanochat's seeds: the order of the items, and the examples of each.
_ORDER, _EXAMPLES = 1337, 1234


class CoreTask(Settings):
    """One entry of `icl_tasks`."""

    label: str
    """Its name, as in `eval_meta_data.csv`."""
    dataset_uri: str
    """Its rows, below `eval_data`."""
    num_fewshot: list[int] = Field(min_length=1)
    """How many examples stand before an item; the first number counts."""
    icl_task_type: Literal["multiple_choice", "schema", "language_modeling"]
    """How it is asked."""
    continuation_delimiter: str = " "
    """Between the prompt and the answer."""
    has_categories: bool = False
    """Not used here."""
    do_normalization: bool | None = None
    """Not used here."""
    question_prelimiter: str | None = None
    """Not used here."""


class CoreFile(Settings):
    """What `core.yaml` says."""

    icl_tasks: list[CoreTask] = Field(min_length=1)
    """The tasks."""


@dataclass(frozen=True)
class CoreItems:
    """A task of the bundle with its rows in the order in which they are asked, and what guessing gets (a share)."""

    task: CoreTask
    rows: list[Row]
    baseline: float

    @property
    def name(self) -> str:
        """What its score is called."""
        return f"{CORE}/{self.task.label}"


@dataclass(frozen=True)
class Bundle:
    """The tasks of a bundle, and what tells it from another."""

    tasks: list[CoreItems]
    sha256: str

    @property
    def items(self) -> int:
        """Of all tasks."""
        return sum(len(t.rows) for t in self.tasks)


def read_bundle(folder: Path, limit: int = 0) -> Bundle:
    """The bundle in `folder`; of each task `limit` items (0: all). UserError names what is missing or damaged."""
    source = read(folder / "core.yaml")
    settings = checked(CoreFile, source.data, source)
    guessing = _baselines(folder / "eval_meta_data.csv")
    tasks = []
    for n, task in enumerate(settings.icl_tasks):
        if task.label not in guessing:
            raise UserError(
                f"the task {task.label!r} is not in eval_meta_data.csv", source.where(("icl_tasks", n, "label"))
            )
        rows = _rows(folder / "eval_data" / task.dataset_uri, task)
        random.Random(_ORDER).shuffle(rows)
        rows = rows[:limit] if limit else rows
        if len(rows) <= task.num_fewshot[0]:
            raise UserError(
                f"{task.num_fewshot[0]} examples are wanted besides the item, and there are {len(rows)} rows",
                f"{folder}, {task.label}",
                "raise the limit" if limit else "give it more rows",
            )
        tasks.append(CoreItems(task, rows, guessing[task.label]))
    return Bundle(tasks, sha256_json([[t.task.model_dump(), t.baseline, t.rows] for t in tasks]))


def _baselines(path: Path) -> dict[str, float]:
    try:
        with path.open(encoding="utf-8", newline="") as f:
            return {row["Eval Task"]: 0.01 * float(row["Random baseline"]) for row in csv.DictReader(f)}
    except OSError as e:
        raise UserError(f"cannot read it: {e.strerror}", str(path), "a bundle has one beside core.yaml") from e
    except (KeyError, ValueError, TypeError) as e:
        raise UserError("it needs the columns 'Eval Task' and 'Random baseline' (in per cent)", str(path)) from e


_NEEDS = {
    "multiple_choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "language_modeling": ("context", "continuation"),
}


def _rows(path: Path, task: CoreTask) -> list[Row]:
    found = []
    for row in read_rows(path):
        if isinstance(row, Skipped):
            raise UserError(row.why, f"{row.file}:{row.line}")
        lacking = [key for key in _NEEDS[task.icl_task_type] if key not in row.value]
        if lacking:
            raise UserError(f"{lacking[0]!r} is missing", f"{row.file}:{row.line}", f"{task.icl_task_type} needs it")
        found.append(row.value)
    return found


def sequences(tokenizer: Tokenizer, items: CoreItems, number: int, context: int) -> list[Scored]:
    """What is rated for one item: each choice or context as a whole prompt, and where its rated part begins."""
    task, row = items.task, items.rows[number]
    shots = task.num_fewshot[0]
    others = [i for i in range(len(items.rows)) if i != number]
    examples = [items.rows[i] for i in random.Random(_EXAMPLES + number).sample(others, shots)] if shots else []
    texts = _texts(task, examples, row)
    ids = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in texts]
    if task.icl_task_type == "language_modeling":
        before, whole = ids
        found = [(whole, min(len(before), common_length(ids)))]
    elif task.icl_task_type == "schema":
        end = common_length([list(reversed(i)) for i in ids])
        found = [(i, len(i) - end) for i in ids]
    else:
        begin = common_length(ids)
        found = [(i, begin) for i in ids]
    # As nanochat cuts: the context holds the last token as well, though nothing is predicted behind it.
    return [(i[-context:], max(1, start - max(0, len(i) - context))) for i, start in found]


def _texts(task: CoreTask, examples: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> list[str]:
    gap, kind = task.continuation_delimiter, task.icl_task_type
    if kind == "multiple_choice":
        shown = [f"{e['query']}{gap}{e['choices'][e['gold']]}" for e in examples]
        asked = [f"{row['query']}{gap}{choice}" for choice in row["choices"]]
    elif kind == "schema":
        shown = [f"{e['context_options'][e['gold']]}{gap}{e['continuation']}" for e in examples]
        asked = [f"{context}{gap}{row['continuation']}" for context in row["context_options"]]
    else:
        shown = [f"{e['context'].strip()}{gap}{e['continuation']}" for e in examples]
        before = f"{row['context'].strip()}{gap}"
        asked = [before, before + row["continuation"]]
    front = "".join(text + "\n\n" for text in shown)
    found = [front + text for text in asked]
    # The end of a prompt without its continuation is white space that the next token may have swallowed.
    return [found[0].strip(), found[1]] if kind == "language_modeling" else found


def _mean(found: Likelihood) -> float:
    return found.total / len(found.logprobs) if found.logprobs else float("-inf")


def ask_core(load: Callable[[], Engine], bundle: Bundle, kept: Path, bar: Progress) -> list[Row]:
    """One row an item, task by task. `kept` is the folder of this model's finished parts."""
    rows: list[Row] = []
    for items in bundle.tasks:
        for at in range(0, len(items.rows), _PART):
            part = range(at, min(at + _PART, len(items.rows)))
            done = kept / f"core-{bundle.sha256[:16]}-{items.task.label}-{at}.json"
            try:
                found = json.loads(done.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                found = _ask(load(), items, part)
                write_json(done, found)
            rows += found
            bar.advance(len(part))
    return rows


def _ask(engine: Engine, items: CoreItems, part: Sequence[int]) -> list[Row]:
    context = int(engine.model.config.context)
    asked = [sequences(engine.tokenizer, items, n, context) for n in part]
    rows = []
    for n, found in zip(part, engine.likelihoods(asked), strict=True):
        row, kind = items.rows[n], items.task.icl_task_type
        if kind == "language_modeling":
            best, right, choices = 0, found[0].greedy, [row["continuation"]]
        else:
            means = [_mean(f) for f in found]
            best = means.index(max(means))
            right, choices = best == row["gold"], row["choices" if kind == "multiple_choice" else "context_options"]
        shown = {"multiple_choice": "query", "schema": "continuation", "language_modeling": "context"}[kind]
        rows.append(
            {
                "id": str(n),
                "task": items.name,
                "group": "",
                "messages": [{"role": "user", "content": str(row[shown])}],
                "answer": str(choices[row.get("gold", 0)]),
                "check": "",
                "reply": str(choices[best]) if kind != "language_modeling" or right else "",
                "read": None,
                "correct": bool(right),
                "formatted": True,
                "refused": False,
                "tokens": 0,
                "finish": "stop",
                "logprobs": [round(_mean(f), 6) for f in found],
            }
        )
    return rows


def core_scores(model: str, bundle: Bundle, rows: Sequence[Row], seed: int) -> list[dict[str, Any]]:
    """CORE with its standard error, and the accuracy of each task with what guessing gets."""
    found, centred, variance = [], [], 0.0
    for items in bundle.tasks:
        score = share_of([float(r["correct"]) for r in rows if r["task"] == items.name], seed)
        whole = 1.0 - items.baseline
        centred.append((score["value"] - items.baseline) / whole)
        variance += ((score["stderr"] or 0.0) / whole) ** 2
        extra = {"baseline": items.baseline, "centred": centred[-1]}
        found.append({"model": model, "task": items.name, "group": "", "metric": "acc", **score, **extra})
    value, error = sum(centred) / len(centred), sqrt(variance) / len(centred)
    overall = {"n": len(rows), "correct": None, "value": value, "stderr": error}
    overall |= {"low": value - 1.96 * error, "high": value + 1.96 * error, "unit": "centred accuracy"}
    return [{"model": model, "task": CORE, "group": "", "metric": CORE, **overall}, *found]
