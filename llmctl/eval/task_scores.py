"""The metrics of a task: of each item, and of all of them together. Plain data in and out.

`acc` takes the choice with the highest log-likelihood, `acc_norm` the highest a character, `acc_bytes` a byte; the
first of equals, as NumPy's argmax does in lm-evaluation-harness.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from math import exp, log
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.eval.task_file import Metric, Task
from llmctl.eval.task_filters import FIRST, filtered
from llmctl.eval.task_prompts import Document
from llmctl.eval.uncertainty import bootstrap, standard_error
from llmctl.generate.scoring import Likelihood
from llmctl.verify.code import holds
from llmctl.verify.statistics import pass_at_k, wilson

Values = dict[str, Any]
Run = Callable[[str], str]


def chosen(document: Document, found: Sequence[Likelihood], metrics: Sequence[Metric]) -> tuple[Values, int]:
    """(the item's metrics, the choice with the highest likelihood) of a multiple-choice item."""
    choices = document.choices
    totals = np.array([f.total for f in found[: len(choices)]])
    gold = _gold(document)
    right = gold if isinstance(gold, list) else [gold]
    by = {
        "acc": totals,
        "acc_norm": totals / np.array([float(len(c)) for c in choices]),
        "acc_bytes": totals / np.array([float(len(c.encode())) for c in choices]),
    }
    if len(found) == 2 * len(choices):
        by["acc_mutual_info"] = totals - np.array([f.total for f in found[len(choices) :]])
    values = {name: float(int(np.argmax(by[name])) in right) for name in (m.metric for m in metrics) if name in by}
    if any(m.metric == "exact_match" for m in metrics):
        values["exact_match"] = float(any(found[g].greedy for g in right if g >= 0))
    return values, int(np.argmax(totals))


def _gold(document: Document) -> int | list[int]:
    """The number of the right choice; -100 for one that is not among them, as in the harness."""
    gold, n = document.gold, len(document.choices)
    if isinstance(gold, list):
        return [g if isinstance(g, int) and g < n else -100 for g in gold]
    if isinstance(gold, str):
        return document.choices.index(gold) if gold in document.choices else -100
    return int(gold) if int(gold) < n else -100


def continued(found: Likelihood) -> Values:
    """The metrics of one continuation: whether each of its tokens was the likeliest, and its log-likelihood."""
    return {"acc": float(found.greedy), "perplexity": found.total}


def rolled(text: str, loglikelihood: float) -> Values:
    """The metrics of a whole text: its log-likelihood, and what it is divided by."""
    words, size = len(re.split(r"\s+", text)), len(text.encode())
    return {
        "word_perplexity": [loglikelihood, words],
        "byte_perplexity": [loglikelihood, size],
        "bits_per_byte": [loglikelihood, size],
    }


def written(task: Task, document: Document, replies: Sequence[str], run: Run | None) -> tuple[Values, dict[str, str]]:
    """(the item's metrics, what each chain of filters read) of the `replies` to an item."""
    values: Values = {}
    read: dict[str, str] = {}
    target = _answer(document)
    for chain in task.settings.filter_list or [FIRST]:
        kept = filtered(replies, chain, document.row)
        read[chain.name] = kept[0] if kept else ""
        behind = "" if chain.name == "none" else f",{chain.name}"
        for metric in task.metrics:
            if metric.metric == "pass_at_k":
                values |= _passes(task, metric, str(target), kept, run, behind)
            else:
                values[metric.metric + behind] = _exact(kept[0] if kept else "", target, metric)
    return values, read


def _answer(document: Document) -> Any:
    if document.choices and isinstance(document.target, int):
        return document.choices[document.target]
    return document.target


def _exact(reply: str, target: Any, metric: Metric) -> float:
    """1 where the reply is the target, or one of several."""
    wanted = target if isinstance(target, list) else [target]
    return float(any(_bare(reply, metric) == _bare(str(t), metric) for t in wanted))


def _bare(text: str, metric: Metric) -> str:
    for pattern in metric.regexes_to_ignore:
        text = re.sub(pattern, "", text)
    text = text.lower() if metric.ignore_case else text
    dropped = string.punctuation * metric.ignore_punctuation + string.digits * metric.ignore_numbers
    return text.translate(str.maketrans("", "", dropped)) if dropped else text


def _passes(task: Task, metric: Metric, tests: str, programs: Sequence[str], run: Run | None, behind: str) -> Values:
    """pass@k by the unbiased estimator, from how many of the programs pass the tests in the sandbox."""
    if run is None:
        raise UserError(
            "programs are judged by running them", str(task.path), "turn the python tool on: -s python=true"
        )
    ks = metric.k if isinstance(metric.k, list) else [metric.k]
    if max(ks) > len(programs):
        raise UserError(
            f"pass@{max(ks)} needs {max(ks)} replies to an item, and there are {len(programs)}",
            str(task.path),
            "raise repeats, and leave take_first out",
        )
    passed = sum(holds(program, tests, run) for program in programs)
    return {f"pass@{k}{behind}": pass_at_k(len(programs), passed, k) for k in ks}


# A perplexity beyond exp(300) says nothing more, and its square must still be a number.
_MOST_NATS = 300.0


def _weighted(x: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(-x[..., 0].sum(1) / x[..., 1].sum(1), _MOST_NATS))


OVERALL: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    # Of (draws, items), or (draws, items, 2) with a log-likelihood and what it is divided by.
    "perplexity": (lambda x: np.exp(np.minimum(-x.mean(1), _MOST_NATS)), "perplexity"),
    "word_perplexity": (_weighted, "perplexity a word"),
    "byte_perplexity": (_weighted, "perplexity a byte"),
    "token_perplexity": (_weighted, "perplexity a token"),
    "bits_per_byte": (lambda x: -x[..., 0].sum(1) / x[..., 1].sum(1) / log(2), "bits a byte"),
    "loss": (lambda x: -x[..., 0].sum(1) / x[..., 1].sum(1), "nats a token"),
}


def task_scores(model: str, task: Task, values: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The scores of one model: of the task by its name, and of its other metrics as `task/metric`."""
    names = list(dict.fromkeys(key for item in values for key in item if _wanted(key, task)))
    names.sort(key=lambda key: [m.metric for m in task.metrics].index(_metric(key)))
    found = []
    for n, name in enumerate(names):
        mine = [item[name] for item in values]
        metric, _, chain = name.partition(",")
        several = len({key.partition(",")[0] for key in names}) > 1
        label = name if several and chain else (chain or metric)
        score = share_of(mine, seed) if metric not in OVERALL else overall(mine, metric, seed)
        found.append(
            {
                "model": model,
                "task": task.name if not n else f"{task.name}/{label}",
                "group": "",
                "metric": name,
                **score,
            }
        )
    return found


def share_of(values: Sequence[float], seed: int) -> dict[str, Any]:
    """A mean of numbers from 0 to 1, with Wilson's interval where each is one of the two, else the bootstrap's."""
    n, whole = len(values), all(v in (0.0, 1.0) for v in values)
    correct = int(sum(values)) if whole else None
    _, low, high = (None, *wilson(int(sum(values)), n)) if whole else bootstrap(values, lambda x: x.mean(1), seed)
    low, high = (0.0, 1.0) if low is None else (low, high)  # one item says nothing
    error = standard_error(values)
    # As the harness sums, so that the digits agree.
    mean = sum(values) / n
    return {"n": n, "correct": correct, "value": mean, "stderr": error, "low": low, "high": high, "unit": "share"}


def overall(values: Sequence[Any], metric: str, seed: int) -> dict[str, Any]:
    """A figure of all items together that is no mean of theirs, with the bootstrap's interval over the items."""
    # As the harness sums, so that the digits agree.
    nats, units = (values, [1.0] * len(values)) if metric == "perplexity" else zip(*values, strict=True)
    value = -sum(nats) / sum(units)
    figure, unit = OVERALL[metric]
    if "perplexity" in unit:
        value = exp(min(value, _MOST_NATS))
    elif metric == "bits_per_byte":
        value /= log(2)
    error, low, high = bootstrap(values, figure, seed)
    found = {"n": len(values), "correct": None, "value": value, "stderr": error, "low": low, "high": high}
    return {**found, "unit": unit}


def _metric(key: str) -> str:
    name = key.partition(",")[0]
    return "pass_at_k" if name.startswith("pass@") else name


def _wanted(key: str, task: Task) -> bool:
    return any(m.metric == _metric(key) for m in task.metrics)
