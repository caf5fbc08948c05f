"""The learning rate over a run: a pure function of the step, so a resumed run needs no memory of it."""

from __future__ import annotations

from llmctl.train.settings import ScheduleSettings


def rate_at(step: int, steps: int, settings: ScheduleSettings) -> float:
    """The factor on the learning rate of update `step` (0-based) out of `steps`: warm-up, constant, cool-down."""
    warmup, cooldown = settings.warmup * steps, settings.cooldown * steps
    rising = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    left = (steps - step) / cooldown if cooldown > 0 else 1.0
    falling = settings.final + (1 - settings.final) * min(1.0, left)
    return min(rising, falling)
