"""Loss spikes: steps so far above the recent ones that something was wrong with them, not with the model.

A batch of garbage can undo hours; llm.c (train_gpt2.cu, `-sl` and `-sg`) leaves such steps out by the z-score of the
loss and of the gradient norm over the last 128 steps, and so does this.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

_WINDOW = 128
_ENOUGH = 64  # before that a standard deviation says little, and early training falls steeply anyway


class Watch:
    """The last values of something that should not jump. A value that does is not remembered."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values = deque(values, maxlen=_WINDOW)

    def is_spike(self, value: float, deviations: float) -> bool:
        """Whether `value` lies more than `deviations` standard deviations above the mean of the last ones."""
        if not deviations or len(self.values) < _ENOUGH:
            return False
        mean = sum(self.values) / len(self.values)
        variance = sum((v - mean) ** 2 for v in self.values) / len(self.values)
        return value > mean + deviations * max(math.sqrt(variance), 1e-3 * abs(mean))

    def follow(self, value: float) -> None:
        """One more good value."""
        self.values.append(value)
