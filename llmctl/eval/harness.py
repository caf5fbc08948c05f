"""lm-evaluation-harness (the `lm_eval` package, an extra) on our engine: all of its tasks, with its own scores."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.likelihood import encode, likelihoods, reply_room, rolling, stopped
from llmctl.eval.task_prompts import FEWSHOT_SEED, Prompt
from llmctl.eval.task_scores import share_of
from llmctl.generate.control import stop_ids
from llmctl.generate.engine import Engine, Sampling
from llmctl.model.chat_format import format_of
from llmctl.workspace.files import sha256_json

Row = dict[str, Any]


def harness_rows(load: Callable[[], Engine], model: str, config: EvalConfig) -> tuple[list[Row], dict[str, list[Row]]]:
    """(scores, item rows by task) of the harness's tasks. UserError where it or a task's data is not there."""
    lm_eval = _lm_eval()
    names = [str(Path(t).resolve()) if t.endswith((".yaml", ".yml")) else t for t in config.harness]
    try:
        found = lm_eval.simple_evaluate(
            model=_harness_model(load(), config.batch_size, config.seed),
            tasks=names,
            num_fewshot=None if config.num_fewshot < 0 else config.num_fewshot,
            limit=config.limit or None,
            apply_chat_template=config.apply_chat_template,
            bootstrap_iters=1000,
            fewshot_random_seed=FEWSHOT_SEED,
            confirm_run_unsafe_code=False,
        )
    except (OSError, ConnectionError) as e:
        what = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise UserError(f"the data of a task cannot be had: {what}", ", ".join(names), "go online once") from e
    except (KeyError, ValueError, AssertionError) as e:
        what = str(e).splitlines()[0] if str(e) else type(e).__name__
        fix = "`lm-eval ls tasks` lists the names"
        raise UserError(f"lm-evaluation-harness says: {what}", ", ".join(names), fix) from e
    return _scores(model, found, config.seed), {task: _items(task, rows) for task, rows in found["samples"].items()}


def _lm_eval() -> Any:
    """The package, quiet. UserError where it is not installed."""
    try:
        found = import_module("lm_eval")
    except ImportError as e:
        raise UserError(
            "lm-evaluation-harness is not installed", "--harness", 'type: pip install "lm_eval>=0.4.9"'
        ) from e
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return found


def _harness_model(engine: Engine, batch_size: int, seed: int) -> Any:
    """The engine behind the three calls that the harness makes of a model."""
    base: Any = import_module("lm_eval.api.model").LM
    tokenizer = engine.tokenizer

    class HarnessModel(base):  # type: ignore[misc]
        """`lm_eval.api.model.LM` over our engine."""

        tokenizer_name = tokenizer.digest

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            groups: dict[Any, list[int]] = {}
            for n, request in enumerate(requests):
                groups.setdefault((request.task_name, request.doc_id), []).append(n)
            pairs = [[(Prompt(requests[n].args[0]), requests[n].args[1]) for n in mine] for mine in groups.values()]
            found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
            for mine, scored in zip(groups.values(), likelihoods(engine, pairs, special=True), strict=True):
                for n, one in zip(mine, scored, strict=True):
                    found[n] = (one.total, one.greedy)
            return found

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return rolling(engine, [r.args[0] for r in requests])

        def generate_until(self, requests: list[Any]) -> list[str]:
            kinds: dict[str, list[int]] = {}
            for n, request in enumerate(requests):
                kinds.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(n)
            found = [""] * len(requests)
            for mine in kinds.values():
                texts = _written(
                    engine, [requests[n].args[0] for n in mine], requests[mine[0]].args[1], batch_size, seed
                )
                for n, text in zip(mine, texts, strict=True):
                    found[n] = text
            return found

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return _chat_text(tokenizer, chat_history, add_generation_prompt)

    return HarnessModel()


def _written(engine: Engine, prompts: Sequence[str], how: Row, batch_size: int, seed: int) -> list[str]:
    until = how.get("until") or []
    stops = tuple(filter(None, [until] if isinstance(until, str) else until))
    wanted = next((how[k] for k in ("max_gen_toks", "max_new_tokens", "max_tokens") if how.get(k)), 256)
    before, new = reply_room(engine, int(wanted))
    tokenizer = engine.tokenizer
    ids = [(encode(tokenizer, p, special=True) or [tokenizer.bos_id])[-before:] for p in prompts]
    heat = 0.0 if not how.get("do_sample") else float(how.get("temperature", 1.0))
    top_k, top_p = int(how.get("top_k", 0)), float(how.get("top_p", 1.0))
    sampling = Sampling(new, heat, top_k, top_p, stop_strings=stops, seed=seed)
    ends = stop_ids(tokenizer, sampling)
    found = []
    for (sample,) in engine.generate(ids, sampling, 1, None, batch_size):
        said = next((sample.ids[:n] for n, i in enumerate(sample.ids) if i in ends), sample.ids)
        found.append(stopped(engine, said, stops))
    return found


def _chat_text(tokenizer: Any, history: Sequence[Row], reply: bool) -> str:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    form = format_of(tokenizer)
    if form is None:
        raise UserError("its tokenizer has no chat tokens, so a chat template cannot be applied", "apply_chat_template")
    text = (
        ImmutableSandboxedEnvironment().from_string(form.template).render(messages=history, add_generation_prompt=reply)
    )
    return text if reply else text[: text.rindex(form.end)]


def _scores(model: str, found: Row, seed: int) -> list[Row]:
    """The harness's results in the form of ours: the first metric under the task's name, the others behind a slash."""
    scores = []
    for task, values in found["results"].items():
        names = [k for k in values if "," in k and "_stderr," not in k and isinstance(values[k], (int, float))]
        for n, name in enumerate(names):
            metric, _, chain = name.partition(",")
            label = metric if chain == "none" else f"{metric},{chain}"
            score = _score(values, name, found["samples"].get(task, []), seed)
            named = {"model": model, "task": task if not n else f"{task}/{label}", "group": "", "metric": label}
            scores.append({**named, **score, "by": "lm_eval"})
    return scores


def _score(values: Row, name: str, samples: Sequence[Row], seed: int) -> Row:
    metric, _, chain = name.partition(",")
    mine = [s[metric] for s in samples if s.get("filter") == chain and isinstance(s.get(metric), (int, float))]
    error = values.get(f"{metric}_stderr,{chain}")
    error = float(error) if isinstance(error, (int, float)) else None
    value = float(values[name])
    if mine and all(0 <= v <= 1 for v in mine) and abs(sum(mine) / len(mine) - value) < 1e-9:
        return {**share_of([float(v) for v in mine], seed), "value": value, "stderr": error}
    span = (
        {"low": value - 1.96 * error, "high": value + 1.96 * error}
        if error is not None
        else {"low": None, "high": None}
    )
    return {
        "n": len({s["doc_id"] for s in samples}),
        "correct": None,
        "value": value,
        "stderr": error,
        **span,
        "unit": metric,
    }


def _items(task: str, samples: Sequence[Row]) -> list[Row]:
    """The harness's samples, plain: what it asked by hash, what the model said, and the metrics."""
    rows = []
    for s in samples:
        metrics = {m: s[m] for m in s.get("metrics", []) if isinstance(s.get(m), (int, float))}
        rows.append(
            {
                "task": task,
                "id": str(s["doc_id"]),
                "filter": s.get("filter"),
                "target": str(s.get("target")),
                "replies": json.loads(json.dumps(s.get("filtered_resps"), default=str)),
                "metrics": metrics,
                "prompt_sha256": s.get("prompt_hash") or sha256_json(str(s.get("arguments")))[:16],
            }
        )
    return rows
