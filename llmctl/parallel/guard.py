"""A function called in a child process that may be killed: for code that hostile input can hang or crash.

The limit is on the child's processor time, not on the clock on the wall, so that what passes does not depend on how
busy the machine is; a child that sleeps is ended by a wall-clock limit many times as long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from llmctl.parallel.outcome import Failed, Outcome, attempt, value_of
from llmctl.parallel.worker import Died, Worker

__all__ = ["Crashed", "Failed", "Guard", "TimedOut"]

_WALL_FACTOR = 20.0


class TimedOut(Exception):
    """The call took longer than it may."""


class Crashed(Exception):
    """The child died: a crash of a C library, or memory. `how` says by what."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__(how)


class Guard:
    """`guard(task)` is `function(task)` in a child, started when first needed and again after each kill.

    `seconds` of processor time a call may take; `prepare` runs in each new child first and takes as long as it takes.
    With `renew_after` a child is replaced after that many calls, for libraries that never let go of memory.
    Raises TimedOut, Crashed, or Failed with the function's traceback. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        seconds: float,
        prepare: Callable[[], None] | None = None,
        renew_after: int | None = None,
    ) -> None:
        self.function, self.seconds, self.prepare = _Clocked(function), seconds, prepare
        self.renew_after = renew_after or math.inf
        self._worker: Worker | None = None
        self._calls = 0

    def __call__(self, task: Any) -> Any:
        """The function's result for `task`."""
        try:
            worker = self._started()
            worker.send(task)
            self._wait(worker)
            self._calls += 1
            answer, self._used = value_of(worker.receive(), "the call")
        except Died as e:
            self.close()
            raise Crashed(e.how) from e
        except (TimedOut, KeyboardInterrupt):
            self.close()
            raise
        if answer[0] == "result" and self._calls >= self.renew_after:
            self.close()
        return value_of(answer, "the call")

    def close(self) -> None:
        """End the child."""
        if self._worker is not None:
            self._worker.stop(grace=0.2)
            self._worker = None

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(self.function, self.prepare, parent=False)
            self._worker.receive()  # "ready"
            self._calls, self._used = 0, _cpu_seconds(self._worker)
        return self._worker

    def _wait(self, worker: Worker) -> None:
        last = time.monotonic() + self.seconds * _WALL_FACTOR
        left = self.seconds
        while not worker.pipe.poll(max(left, 0.01)):
            left = self.seconds - (_cpu_seconds(worker) - self._used)
            if left <= 0:
                raise TimedOut(f"more than {self.seconds:g} s of processor time")
            if time.monotonic() > last:
                raise TimedOut(f"more than {self.seconds * _WALL_FACTOR:g} s, most of them asleep")


class _Clocked:
    """`function` in the child; each answer says how much processor time the child has used by then, so that the next
    call can be timed without asking the system before it.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, task: Any) -> tuple[Outcome, float]:
        return attempt(self.function, task), time.process_time()


def _cpu_seconds(worker: Worker) -> float:
    import psutil

    try:
        times = psutil.Process(worker.process.pid).cpu_times()
    except psutil.Error as e:
        raise Died(worker.how_it_ended()) from e
    return float(times.user + times.system)
