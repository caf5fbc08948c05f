"""One child process that runs a function on the tasks it is sent.

Started by `spawn`, never `fork`: a forked copy of a process with threads (Arrow, torch) may hang on a lock that nobody
holds any more. The child ignores Ctrl-C, which is the parent's to act on, and ends by itself when the parent is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import Any

from llmctl.parallel import ticks
from llmctl.parallel.outcome import Outcome, attempt

# One worker a core already: more threads in each would only wait for each other.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS")


class Died(Exception):
    """The child ended without an answer; `how` says by what (a signal, an exit status)."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__(how)


class Worker:
    """A child process. `send` a task, then `receive` its outcome from `pipe`.

    `prepare` runs in the child before it says that it is ready. `parent` says whether the child starts children of its
    own (a daemon may not, by multiprocessing's rules).
    """

    def __init__(
        self, function: Callable[[Any], Any], prepare: Callable[[], None] | None = None, parent: bool = True
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=not parent)
        with _ctrl_c_held():
            self.process.start()
        theirs.close()
        # By the pipe and not as an argument: its module is imported when it arrives, after _serve prepared the child.
        with contextlib.suppress(Died):  # heard by the first receive()
            self.send((function, prepare))

    def send(self, task: Any) -> None:
        """Hand over a task. Died where the child is gone."""
        try:
            self.pipe.send(task)
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Died(self.how_it_ended()) from e

    def receive(self) -> Outcome | tuple[str, int]:
        """The next message: an outcome, ("tick", count) or ("ready", 0). Died where the child is gone."""
        try:
            message: Outcome = self.pipe.recv()
            return message
        except (EOFError, ConnectionResetError) as e:
            raise Died(self.how_it_ended()) from e

    def how_it_ended(self) -> str:
        """In words: by which signal or exit status."""
        self.process.join(5)
        code = self.process.exitcode
        if code is None:
            return "it closed its pipe"
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def stop(self, grace: float = 1.0) -> None:
        """End the child: asked first, killed where it does not listen."""
        with contextlib.suppress(OSError):
            self.pipe.close()
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(grace)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """A child inherits the mask, so Ctrl-C while it starts prints no traceback; this process gets it a moment later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: connection.Connection) -> None:
    """The child's life: the function first, then tasks until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_the_parent()
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    ticks.listen(lambda count: pipe.send(("tick", count)))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        function, prepare = pipe.recv()
        if prepare:
            prepare()
        pipe.send(("ready", 0))
        while True:
            outcome = attempt(function, pipe.recv())
            ticks.flush()
            _answer(pipe, outcome)


def _answer(pipe: connection.Connection, outcome: Outcome) -> None:
    try:
        pipe.send(outcome)
    except (TypeError, AttributeError, ValueError) as e:  # a result that cannot be pickled
        pipe.send(("defect", f"the result cannot be sent: {e!r}"))


def _end_with_the_parent() -> None:
    """A SIGKILL of the parent leaves no orphans at work. Blocks in a thread of its own; costs nothing."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch(sentinel: int = parent.sentinel) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with the parent").start()
