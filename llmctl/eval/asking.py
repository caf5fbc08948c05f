"""Asking a model: answers in whole batches that are kept as they come, so that a kill costs one batch at most."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmctl.console import Progress
from llmctl.eval.config import EvalConfig
from llmctl.eval.questions import Question
from llmctl.generate.engine import Engine, Sample, Sampling, ToolRunner
from llmctl.model.chat_format import render_prompt
from llmctl.tools.python import run_python
from llmctl.verify import check
from llmctl.workspace.files import write_json

Row = dict[str, Any]


def ask(
    load: Callable[[], Engine],
    questions: Sequence[Question],
    tools: ToolRunner,
    config: EvalConfig,
    kept: Path,
    bar: Progress,
) -> list[Row]:
    """One row a question, in their order. `kept` is the folder of this model's finished batches.

    A batch is always the same questions, so that an answer does not depend on where a run was taken up: another batch
    rounds differently. The model is loaded when the first unfinished batch is met.
    """
    rows: list[Row] = []
    engine: Engine | None = None
    for at in range(0, len(questions), config.batch_size):
        batch = questions[at : at + config.batch_size]
        done = kept / f"{_name(batch)}.json"
        found = _read(done, batch)
        if found is None:
            engine = engine or load()
            found = _answer(engine, batch, tools, config)
            write_json(done, found)
        rows += found
        bar.advance(len(batch))
    return rows


def _answer(engine: Engine, batch: Sequence[Question], tools: ToolRunner, config: EvalConfig) -> list[Row]:
    sampling = Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=config.seed)
    prompts = [render_prompt(q.messages, engine.tokenizer) + engine.tokenizer.encode(q.prefix) for q in batch]
    samples = engine.generate(prompts, sampling, 1, tools, config.batch_size)
    run = run_python if config.python else None
    return [_row(q, found[0], run) for q, found in zip(batch, samples, strict=True)]


def _row(question: Question, sample: Sample, run: Callable[[str], str] | None) -> Row:
    """What the per-item file keeps: enough to judge the answer again without the model."""
    asked = {"answer": question.answer, "check": question.check}
    asked |= {"form": question.form} if question.form else {}
    reply = question.prefix + sample.text
    verdict = check(asked, reply, run)
    return {
        "id": question.id,
        "task": question.task,
        "group": question.group,
        "messages": question.messages,
        **asked,
        "reply": reply,
        "read": verdict.answer,
        "correct": verdict.correct,
        "formatted": verdict.formatted,
        # On a question that has an answer, declining is a mistake of another sort than a wrong answer.
        "refused": check({"answer": "", "check": "refusal"}, reply).correct,
        "tokens": len(sample.ids),
        "finish": sample.finish,
    }


def _name(batch: Sequence[Question]) -> str:
    return hashlib.sha256("\n".join(f"{q.task}/{q.id}" for q in batch).encode()).hexdigest()[:24]


def _read(path: Path, batch: Sequence[Question]) -> list[Row] | None:
    """The rows of a finished batch; None where there are none, or they are no rows of these questions."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(found, list) and [r.get("id") for r in found if isinstance(r, dict)] == [q.id for q in batch]
    return found if whole else None
