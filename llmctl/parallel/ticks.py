"""Signs of life from inside a shard: they move the progress bar, and their absence shows a worker that hangs."""

from __future__ import annotations

import time
from collections.abc import Callable

Listener = Callable[[int], None]

_EVERY = 0.2  # seconds; a message per document would cost more than many documents do


class _Ticks:
    """Counts gathered until it is time to report them."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self.count, self.said = 0, 0.0

    def flush(self) -> None:
        if self.listener and self.count:
            count, self.count, self.said = self.count, 0, time.monotonic()
            self.listener(count)


_ticks = _Ticks()


def tick(count: int = 1) -> None:
    """Called by a shard's function as it goes on: `count` more units (documents, say) are done. Cheap."""
    _ticks.count += count
    if time.monotonic() - _ticks.said > _EVERY:
        _ticks.flush()


def listen(listener: Listener | None) -> None:
    """From now on this process's ticks go to `listener`."""
    _ticks.listener, _ticks.count, _ticks.said = listener, 0, 0.0


def flush() -> None:
    """Report what has not been reported yet; at the end of a shard."""
    _ticks.flush()
