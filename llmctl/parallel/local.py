"""Shards on this machine: one process a worker, one shard in hand each, every death and silence noticed and named."""

from __future__ import annotations

import atexit
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from llmctl.errors import UserError
from llmctl.parallel import ticks
from llmctl.parallel.outcome import value_of
from llmctl.parallel.worker import Died, Worker


@dataclass
class Shard:
    """One task, how it is called in messages, and how often a worker was lost on it."""

    task: Any
    name: str
    lost: int = 0


@dataclass
class Busy:
    """A worker with a shard in hand; `heard` is when it last gave a sign of life."""

    worker: Worker
    shard: Shard
    heard: float


def run_in_process(
    function: Callable[[Any], Any], shards: Sequence[Shard], on_tick: ticks.Listener | None
) -> Iterator[Any]:
    """The shards one after the other, here: exceptions come as they are, a debugger works."""
    for shard in shards:
        ticks.listen(on_tick)
        try:
            result = function(shard.task)
            ticks.flush()
        finally:
            ticks.listen(None)
        yield result


def run_local(
    function: Callable[[Any], Any],
    shards: Sequence[Shard],
    workers: int,
    on_tick: ticks.Listener | None,
    patience: float,
    retries: int,
    warn: Callable[[str], None],
) -> Iterator[Any]:
    """The results as they come. See `run_shards`."""
    pool = _Pool(function, workers, patience, on_tick)
    waiting = deque(shards)
    try:
        while waiting or pool.busy:
            while waiting and pool.has_room():
                pool.give(waiting.popleft())
            for shard, outcome in pool.listen():
                if isinstance(outcome, Died):
                    _again(shard, outcome, retries, warn)
                    waiting.appendleft(shard)
                else:
                    yield value_of(outcome, shard.name)
    finally:
        pool.stop()


def _again(shard: Shard, death: Died, retries: int, warn: Callable[[str], None]) -> None:
    """One more try for a shard whose worker was lost; UserError where it has had its tries."""
    shard.lost += 1
    if shard.lost > retries:
        raise UserError(
            f"a worker was lost on {shard.name} ({death.how}); tries: {shard.lost}",
            fix="SIGKILL is mostly memory: try fewer --workers. What is done is kept: run the same command to go on",
        )
    warn(f"a worker was lost on {shard.name} ({death.how}); trying it again")


class _Pool:
    """Worker processes, started as they are needed and replaced when they die."""

    def __init__(
        self, function: Callable[[Any], Any], workers: int, patience: float, on_tick: ticks.Listener | None
    ) -> None:
        self.function, self.workers, self.patience, self.on_tick = function, workers, patience, on_tick
        self.idle: list[Worker] = []
        self.busy: list[Busy] = []
        atexit.register(self.stop)  # before multiprocessing's own exit handler, which waits for children for ever

    def has_room(self) -> bool:
        return len(self.busy) < self.workers

    def give(self, shard: Shard) -> None:
        """Hand a shard to an idle worker, or to a new one."""
        worker = self.idle.pop() if self.idle else Worker(self.function)
        busy = Busy(worker, shard, time.monotonic())
        self.busy.append(busy)
        with contextlib.suppress(Died):  # its closed pipe is seen, and reported, by the next listen()
            worker.send(shard.task)

    def listen(self) -> list[tuple[Shard, Any]]:
        """Wait a moment; the shards that ended, each with its outcome or with the death of its worker."""
        connection.wait([b.worker.pipe for b in self.busy], timeout=1.0)
        ended = [(b, outcome) for b in self.busy for outcome in [self._hear(b)] if outcome is not None]
        for b, outcome in ended:
            self.busy.remove(b)
            if isinstance(outcome, Died):
                b.worker.stop()
            else:
                self.idle.append(b.worker)
        return [(b.shard, outcome) for b, outcome in ended]

    def _hear(self, busy: Busy) -> Any:
        """Everything one worker has said; its outcome or its death, or None while it is at work."""
        try:
            while busy.worker.pipe.poll():
                message = busy.worker.receive()
                busy.heard = time.monotonic()
                if message[0] == "tick" and self.on_tick:
                    self.on_tick(message[1])
                elif message[0] not in ("tick", "ready"):
                    return message
        except Died as death:
            return death
        if self.patience and time.monotonic() - busy.heard > self.patience:
            return Died(f"no sign of life for {self.patience:g} s")
        return None

    def stop(self) -> None:
        """End every worker. The signal goes to all before any is waited for."""
        atexit.unregister(self.stop)
        workers = [*self.idle, *(b.worker for b in self.busy)]
        self.idle, self.busy = [], []
        for worker in workers:
            if worker.process.is_alive():
                worker.process.terminate()
        for worker in workers:
            worker.stop()
