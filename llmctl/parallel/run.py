"""`run_shards`: one function over many tasks, with progress, resume, and every lost worker named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from llmctl.console import Console
from llmctl.parallel.local import Shard, run_in_process, run_local
from llmctl.parallel.ray_engine import run_ray

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_shards(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int = 0,
    engine: str = "local",
    *,
    done: Callable[[Task], bool] | None = None,
    name: Callable[[Task], str] | None = None,
    console: Console | None = None,
    title: str = "",
    unit: str = "shards",
    total: int | None = None,
    patience: float = 0.0,
    retries: int = 1,
) -> Iterator[Result]:
    """Run `function` on every task and give the results as they finish (so in no fixed order).

    function: at the top level of a module; tasks: plain data. Both travel, by pickle, to our own children only.
    A task writes its output whole or not at all (`whole_folder`, `whole_file`); then a shard for which `done(task)` is
    true has its output already, and is skipped: no result comes for it.

    workers: processes; 0 means all cores; 1 runs in this process. engine: "local" or "ray".
    name: how a shard is called in messages. title, unit, total: the progress bar on `console`. Where `unit` is
    not "shards" it counts what the function reports by `tick`.
    patience: seconds without a tick after which a worker counts as hung and is ended; 0 means for ever. A shard whose
    worker was lost is tried again `retries` times.

    Raises UserError (what a function raised, or a shard that lost its workers) and Failed (a defect in the function,
    with its traceback). On any exception, Ctrl-C included, the children are ended first.
    """
    if engine not in ("local", "ray"):
        raise ValueError(f"no engine {engine!r}")
    shards = [
        Shard(task, name(task) if name else f"shard {i + 1} of {len(tasks)}")
        for i, task in enumerate(tasks)
        if not (done and done(task))
    ]
    console = console or Console(quiet=True)
    # Ray's tasks report nothing on their way, so there the bar always counts shards.
    by_shard = unit == "shards" or engine == "ray"
    with console.progress(title, len(tasks) if by_shard else total, "shards" if by_shard else unit) as bar:
        if by_shard:
            bar.start_at(len(tasks) - len(shards))
        on_tick = None if by_shard else bar.advance
        for result in _results(function, shards, workers, engine, on_tick, patience, retries, console.warn):
            if by_shard:
                bar.advance(1)
            yield result


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _results(
    function: Callable[[Any], Any],
    shards: list[Shard],
    workers: int,
    engine: str,
    on_tick: Callable[[int], None] | None,
    patience: float,
    retries: int,
    warn: Callable[[str], None],
) -> Iterator[Any]:
    if engine == "ray":
        return run_ray(function, shards, workers, retries) if shards else iter(())
    workers = min(workers or cores(), len(shards))
    if workers <= 1:
        return run_in_process(function, shards, on_tick)
    return run_local(function, shards, workers, on_tick, patience, retries, warn)
