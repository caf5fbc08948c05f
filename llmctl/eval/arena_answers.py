"""What each model of an arena answers: whole batches, kept as they come, so that a kill costs one of them at most."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmctl.console import Progress
from llmctl.eval.arena_prompts import Prompt
from llmctl.eval.config import EvalConfig
from llmctl.generate.engine import Engine, Sampling, ToolRunner
from llmctl.model.chat_format import render_prompt
from llmctl.workspace.files import sha256_json, write_json

Answer = dict[str, Any]


def answers_of(
    load: Callable[[], Engine],
    prompts: Sequence[Prompt],
    tools: ToolRunner,
    config: EvalConfig,
    kept: Path,
    bar: Progress,
) -> list[Answer]:
    """{"text", "finish", "tokens"} for each prompt. The model is loaded at the first batch that is not there yet."""
    found: list[Answer] = []
    engine: Engine | None = None
    how = Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=config.seed)
    for at in range(0, len(prompts), config.batch_size):
        batch = prompts[at : at + config.batch_size]
        done = kept / f"{sha256_json([p.id for p in batch])[:24]}.json"
        rows = read_kept(done, len(batch))
        if rows is None:
            engine = engine or load()
            ids = [render_prompt(p.messages, engine.tokenizer) for p in batch]
            samples = engine.generate(ids, how, 1, tools, config.batch_size)
            rows = [{"text": s[0].text, "finish": s[0].finish, "tokens": len(s[0].ids)} for s in samples]
            write_json(done, rows)
        found += rows
        bar.advance(len(batch))
    return found


def read_kept(path: Path, count: int) -> list[dict[str, Any]] | None:
    """The rows of a finished batch; None where there are none, or the file is torn."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(found, list) and len(found) == count and all(isinstance(r, dict) for r in found)
    return found if whole else None
