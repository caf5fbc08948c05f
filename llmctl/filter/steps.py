"""The steps in FineWeb's order, as the settings want them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmctl.filter.c4 import C4
from llmctl.filter.config import FilterConfig
from llmctl.filter.decontamination import Decontamination
from llmctl.filter.extract import Extract
from llmctl.filter.fineweb_quality import FineWebQuality
from llmctl.filter.gopher_quality import GopherQuality
from llmctl.filter.gopher_repetition import GopherRepetition
from llmctl.filter.language import Language
from llmctl.filter.quality import Quality
from llmctl.filter.row import Scorer
from llmctl.filter.url import UrlFilter

STEPS: dict[str, Callable[[Any], Scorer]] = {
    "url": UrlFilter,
    "extract": Extract,
    "language": Language,
    "gopher_repetition": GopherRepetition,
    "gopher_quality": GopherQuality,
    "c4": C4,
    "fineweb_quality": FineWebQuality,
    "quality": Quality,
    "decontamination": Decontamination,
}


def wanted_steps(config: FilterConfig) -> list[str]:
    """The names of the steps that measure one document at a time, without those that are switched off."""
    # Extraction is always there: switched off, it hands the HTML through as the text.
    return [name for name in STEPS if name == "extract" or runs(getattr(config, name))]


def steps_of(config: FilterConfig) -> list[Scorer]:
    """Those steps, ready to measure."""
    return [STEPS[name](getattr(config, name)) for name in wanted_steps(config)]


def step_names(config: FilterConfig) -> list[str]:
    """The names of all steps of the first pass, a person's own filter last."""
    return wanted_steps(config) + ["own"] * bool(config.own.function)


def runs(settings: Any) -> bool:
    """Whether a step runs; one that needs a model or sets does where they are given."""
    return bool(getattr(settings, "wanted", getattr(settings, "enabled", True)))
