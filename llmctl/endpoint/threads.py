"""Many calls at once, results as they come.

The threads are daemons and not an executor's: an executor waits at exit for requests that nobody wants any more, which
after Ctrl-C may be minutes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def as_they_come(call: Callable[[int], T], count: int, threads: int) -> Iterator[tuple[int, T]]:
    """(i, call(i)) for every i below `count`, at most `threads` at once. The first exception ends it."""
    todo = iter(range(count))
    lock, stop = threading.Lock(), threading.Event()
    done: queue.Queue[tuple[int, T | BaseException]] = queue.Queue()

    def work() -> None:
        while not stop.is_set():
            with lock:
                i = next(todo, None)
            if i is None:
                return
            try:
                done.put((i, call(i)))
            except BaseException as e:
                done.put((i, e))
                return

    for _ in range(min(threads, count)):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in range(count):
            i, found = done.get()
            if isinstance(found, BaseException):
                raise found
            yield i, found
    finally:
        stop.set()
