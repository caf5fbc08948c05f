"""Main text out of HTML. The parser has a process of its own: a page that hangs or crashes it loses only itself."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from functools import cached_property

from llmctl.errors import UserError
from llmctl.filter.config import ExtractSettings
from llmctl.filter.html_text import MainText
from llmctl.filter.row import Row, Rule, well_formed
from llmctl.parallel import Crashed, Failed, Guard, TimedOut

_PASSED = (0.0, 0.0, 0.0)  # timeout, crash, failure
_UNKNOWN = (math.nan, math.nan, math.nan)
# Pages after which the parser's process is replaced: libxml2 keeps every tag and attribute name it has ever seen.
_RENEW_AFTER = 20_000


class Extract:
    """The step. Gives every row its text, or none where the page is too large, too slow, or the parser fails on it.

    A document that is text already is only asked whether it is empty.
    """

    name = "extract"

    def __init__(self, settings: ExtractSettings) -> None:
        """UserError where the chosen extractor is not installed."""
        if settings.enabled and importlib.util.find_spec(settings.extractor) is None:
            raise UserError(
                f"{settings.extractor} is not installed",
                "extract.extractor",
                "pip install 'llmctl-toolkit[fast]', or choose trafilatura",
            )
        self.settings = settings
        self.rules = (
            Rule("too_large", settings.max_bytes),
            Rule("timeout", 0.0),
            Rule("crash", 0.0),
            Rule("failure", 0.0),
            Rule("empty", 0.0, "not_above"),
        )

    def __call__(self, row: Row) -> Sequence[float]:
        """Bytes of the page, three of 0 or 1, and characters of the text; NaN behind whatever ended the extraction."""
        size, states = math.nan, _UNKNOWN
        if row.text is None and not self.settings.enabled:
            row.text = well_formed(row.document.markup())
        elif row.text is None:
            size = float(row.size)
            if size > self.settings.max_bytes:
                return size, *_UNKNOWN, math.nan
            states = self._extract(row)
            if row.text is None:
                return size, *states, math.nan
        return size, *states, float(len(row.body.strip()))

    def close(self) -> None:
        """End the parser's process."""
        self._guard.close()

    @cached_property
    def _guard(self) -> Guard:
        main_text = MainText(self.settings)
        return Guard(main_text, self.settings.seconds, main_text.prepare, _RENEW_AFTER)

    def _extract(self, row: Row) -> tuple[float, float, float]:
        try:
            row.text = well_formed(self._guard((row.document.html, row.document.charset)))
            return _PASSED
        except TimedOut as e:
            row.details["timeout"] = str(e)
            return 1.0, 0.0, 0.0
        except Crashed as e:
            row.details["crash"] = e.how
            return 0.0, 1.0, 0.0
        except Failed as e:
            row.details["failure"] = str(e).strip().split("\n")[-1]
            return 0.0, 0.0, 1.0
