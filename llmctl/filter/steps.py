"""The steps in FineWeb's order, as the settings want them."""

from __future__ import annotations

from llmctl.filter.c4 import C4
from llmctl.filter.config import FilterConfig
from llmctl.filter.extract import Extract
from llmctl.filter.fineweb_quality import FineWebQuality
from llmctl.filter.gopher_quality import GopherQuality
from llmctl.filter.gopher_repetition import GopherRepetition
from llmctl.filter.language import Language
from llmctl.filter.own import Own
from llmctl.filter.row import Check, Row, Step
from llmctl.filter.url import UrlFilter


def steps_of(config: FilterConfig) -> list[Step]:
    """The steps that look at one document at a time, without those that are switched off."""
    # Extraction is always there: switched off, it hands the HTML through as the text.
    steps: list[tuple[bool, Step]] = [
        (config.url.enabled, UrlFilter(config.url)),
        (True, Extract(config.extract)),
        (config.language.enabled, Language(config.language)),
        (config.gopher_repetition.enabled, GopherRepetition(config.gopher_repetition)),
        (config.gopher_quality.enabled, GopherQuality(config.gopher_quality)),
        (config.c4.enabled, C4(config.c4)),
        (config.fineweb_quality.enabled, FineWebQuality(config.fineweb_quality)),
        (bool(config.own.function), Own(config.own)),
    ]
    return [step for enabled, step in steps if enabled]


def first_failure(step: Step, row: Row) -> Check | None:
    """The first rule of a step that drops the row, or None; then the step has also done its work on the text."""
    return next((check for check in step(row) if check.failed), None)
