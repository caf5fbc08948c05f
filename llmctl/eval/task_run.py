"""Asking a model the items of a task: in large parts, so that lengths can be sorted, that are kept as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from llmctl.console import Progress
from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.likelihood import likelihoods, prompt_ids, reply_room, rolling, stopped
from llmctl.eval.task_data import Splits, json_row
from llmctl.eval.task_file import Task, read_task
from llmctl.eval.task_prompts import Document, Prompt, contents, documents
from llmctl.eval.task_scores import Run, chosen, continued, rolled, written
from llmctl.generate.control import stop_ids
from llmctl.generate.engine import Engine, Sampling, ToolRunner
from llmctl.tools.python import run_python
from llmctl.verify.checks import last_words
from llmctl.workspace.files import sha256_json, write_json

Row = dict[str, Any]
_PART = 256  # items: a kill costs one part, and within one the lengths are sorted
_SECONDS = 3.0  # HumanEval's own time limit for one program


@dataclass
class Prepared:
    """A task with its items as they are asked, and what tells it from every other measurement."""

    task: Task
    documents: list[Document]
    chat: bool
    num_fewshot: int
    data_sha256: str
    prompts_sha256: str
    in_training: dict[int, str] = field(default_factory=dict)
    """Item number -> the artifact of the training data that it stands in."""

    @property
    def name(self) -> str:
        """What its scores are called."""
        return self.task.name

    def facts(self) -> Row:
        """What the results say about it."""
        settings = self.task.settings
        return {
            "task": self.name,
            "output_type": settings.output_type,
            "dataset": settings.dataset_path,
            "items": len(self.documents),
            "num_fewshot": self.num_fewshot,
            "chat": self.chat,
            "data_sha256": self.data_sha256,
            "prompts_sha256": self.prompts_sha256,
            "first_prompt": self.documents[0].prompts[0].text if self.documents[0].prompts else "",
            "metadata": settings.metadata,
        }


def prepare(name: str, config: EvalConfig) -> Prepared:
    """Read a task and its data, and make its prompts. UserError with what is wrong with either."""
    task = read_task(name)
    wanted = None if config.num_fewshot < 0 else config.num_fewshot
    chat = config.apply_chat_template and task.settings.output_type != "loglikelihood_rolling"
    found = documents(task, Splits(task), wanted, config.limit, chat)
    own = task.settings.num_fewshot
    return Prepared(
        task,
        found,
        chat,
        num_fewshot=own or 0 if wanted is None or own == 0 else wanted,
        data_sha256=sha256_json([json_row(d.row) for d in found]),
        prompts_sha256=sha256_json(json_row({"": list(contents(found))})),
    )


def ask_task(
    load: Callable[[], Engine],
    prepared: Prepared,
    tools: ToolRunner | None,
    config: EvalConfig,
    kept: Path,
    bar: Progress,
) -> list[Row]:
    """One row an item, in their order. `kept` is the folder of this model's finished parts."""
    rows: list[Row] = []
    settings = prepared.task.settings.model_dump(mode="json")
    for at in range(0, len(prepared.documents), _PART):
        part = prepared.documents[at : at + _PART]
        asked = [settings, config.seed, json_row({"": list(contents(part))}), [d.number for d in part]]
        done = kept / f"task-{sha256_json(asked)[:24]}.json"
        found = _read(done, part)
        if found is None:
            found = _rows(load(), prepared, part, tools, config)
            write_json(done, found)
        rows += found
        bar.advance(len(part))
    for row in rows:
        if row["number"] in prepared.in_training:
            row["in_training"] = prepared.in_training[row["number"]]
    return rows


def _rows(
    engine: Engine, prepared: Prepared, part: Sequence[Document], tools: ToolRunner | None, config: EvalConfig
) -> list[Row]:
    kind = prepared.task.settings.output_type
    if kind == "generate_until":
        return _generated(engine, prepared, part, tools if prepared.chat else None, config)
    if kind == "loglikelihood_rolling":
        totals = rolling(engine, [d.continuations[0] for d in part])
        return [
            _row(prepared, d, None, "", {"metrics": rolled(d.continuations[0], total)})
            for d, total in zip(part, totals, strict=True)
        ]
    pairs = [d.pairs for d in part]
    if any(m.metric == "acc_mutual_info" for m in prepared.task.metrics):
        pairs = [[*mine, *((Prompt(""), text) for _, text in mine)] for mine in pairs]
    rows = []
    for d, found in zip(part, likelihoods(engine, pairs), strict=True):
        if kind == "loglikelihood":
            values = continued(found[0])
            rows.append(_row(prepared, d, bool(values["acc"]), "", {"metrics": values}))
            continue
        values, best = chosen(d, found, prepared.task.metrics)
        said = {"choices": d.choices, "loglikelihoods": [round(f.total, 6) for f in found], "metrics": values}
        first = values.get(prepared.task.metrics[0].metric, 0.0)
        rows.append(_row(prepared, d, bool(first), d.choices[best], said))
    return rows


def _generated(
    engine: Engine, prepared: Prepared, part: Sequence[Document], tools: ToolRunner | None, config: EvalConfig
) -> list[Row]:
    settings = prepared.task.settings
    how = settings.generation_kwargs
    before, new = reply_room(engine, how.max_new_tokens or how.max_gen_toks)
    prompts = [prompt_ids(engine.tokenizer, d.prompts[0])[-before:] for d in part]
    stops = tuple(filter(None, prepared.task.until))
    sampling = Sampling(
        max_new_tokens=new,
        temperature=0.0 if how.do_sample is False else how.temperature,
        top_k=how.top_k,
        top_p=how.top_p,
        stop_strings=stops,
        seed=config.seed,
    )
    run: Run | None = partial(run_python, seconds=_SECONDS) if config.python else None
    rows = []
    samples = engine.generate(prompts, sampling, settings.repeats, tools, config.batch_size)
    for d, found in zip(part, samples, strict=True):
        replies = [last_words(s.text) if tools else stopped(engine, _said(engine, s.ids), stops) for s in found]
        values, read = written(prepared.task, d, replies, run)
        said: Row = {"metrics": values, "read": next(iter(read.values())), "filtered": read}
        said |= {"tokens": sum(len(s.ids) for s in found), "finish": found[0].finish}
        if len(replies) > 1:
            said["replies"] = replies
        first = next(iter(values.values()))
        rows.append(_row(prepared, d, bool(first), replies[0], said))
    return rows


def _said(engine: Engine, ids: Sequence[int]) -> Sequence[int]:
    """Up to the token that ends a text or a turn."""
    ends = stop_ids(engine.tokenizer, Sampling())
    return next((ids[:n] for n, i in enumerate(ids) if i in ends), ids)


def _row(prepared: Prepared, document: Document, correct: bool | None, reply: str, more: Row) -> Row:
    """What the per-item file keeps; the keys that items of conversations have mean the same here."""
    gold, choices = document.gold, document.choices
    answer = choices[gold] if choices and isinstance(gold, int) and 0 <= gold < len(choices) else document.target
    return {
        "id": str(document.number),
        "number": document.number,
        "task": prepared.name,
        "group": "",
        "messages": [{"role": "user", "content": document.question}],
        "answer": str(answer),
        "check": "",
        "reply": reply,
        "read": None,
        "correct": correct,
        "formatted": True,
        "refused": False,
        "tokens": 0,
        "finish": "stop",
        "prompt_sha256": sha256_json(json_row({"": list(contents([document]))}))[:16],
        **more,
    }


def check_chat(name: str, tokenizer_chats: bool) -> None:
    """UserError for a model without the chat template that is asked for."""
    if not tokenizer_chats:
        raise UserError(
            "its tokenizer has no chat tokens, so a chat template cannot be applied",
            name,
            "leave apply_chat_template out, or give a model that was taught to chat",
        )


def _read(path: Path, part: Sequence[Document]) -> list[Row] | None:
    """The rows of a finished part; None where there are none, or they are no rows of these items."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(found, list) and [r.get("number") for r in found if isinstance(r, dict)] == [
        d.number for d in part
    ]
    return found if whole else None
