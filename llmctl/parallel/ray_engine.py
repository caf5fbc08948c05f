"""Shards on a Ray cluster: the same function on the same tasks. Ray is an extra and is imported only here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llmctl.errors import UserError
from llmctl.parallel.local import Shard
from llmctl.parallel.outcome import attempt, value_of


def run_ray(function: Callable[[Any], Any], shards: Sequence[Shard], workers: int, retries: int) -> Iterator[Any]:
    """The results as they come. `workers` shards are in flight at once (0: as many as the cluster has CPUs).

    A cluster is found through RAY_ADDRESS; without it Ray is started on this machine. Every machine of a cluster must
    see the workspace's folder and the inputs under the same paths.
    """
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        yield from _flow(ray, function, shards, workers or int(ray.cluster_resources().get("CPU", 1)), retries)
    finally:
        if ours:
            ray.shutdown()


def _flow(
    ray: Any, function: Callable[[Any], Any], shards: Sequence[Shard], window: int, retries: int
) -> Iterator[Any]:
    # Ray runs a task again by itself when the worker or the machine under it is lost.
    remote = ray.remote(num_cpus=1, max_retries=retries)(attempt)
    waiting, flying = deque(shards), dict[Any, Shard]()
    try:
        while waiting or flying:
            while waiting and len(flying) < max(window, 1):
                shard = waiting.popleft()
                flying[remote.remote(function, shard.task)] = shard
            finished, _ = ray.wait(list(flying), num_returns=1)
            shard = flying.pop(finished[0])
            yield value_of(_fetch(ray, finished[0], shard.name), shard.name)
    finally:
        for reference in flying:
            ray.cancel(reference, force=True)


def _fetch(ray: Any, reference: Any, name: str) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as e:
        raise UserError(
            f"Ray lost {name}: {type(e).__name__}",
            fix="see `ray status`. What is done is kept: run the same command to go on",
        ) from e


def _ray() -> Any:
    try:
        import ray
    except ImportError as e:
        raise UserError(
            "--engine ray needs Ray, which is not installed",
            fix="pip install 'llmctl-toolkit[ray]', or leave --engine at local",
        ) from e
    return ray
