"""Main text out of HTML. The parser has a process of its own: a page that hangs or crashes it loses only itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from llmctl.filter import html_text
from llmctl.filter.config import ExtractSettings
from llmctl.filter.row import Check, Row, above, well_formed
from llmctl.parallel import Crashed, Failed, Guard, TimedOut


class Extract:
    """The step. Gives every row its text, or drops it: nothing found, too large, too slow, or the parser failed on
    it.
    """

    name = "extract"

    def __init__(self, settings: ExtractSettings) -> None:
        self.settings = settings

    def __call__(self, row: Row) -> Iterator[Check]:
        """Size, time, failure, nothing found. A document that is text already is only asked whether it is empty."""
        if row.text is None:
            if not self.settings.enabled:
                row.text = well_formed(row.document.markup())
            else:
                yield above("too_large", row.size, self.settings.max_bytes)
                text, check = self._extracted(row)
                if check is not None:
                    yield check
                row.text = well_formed(text)
        yield Check("empty", not row.body.strip(), float(len(row.body)))

    def close(self) -> None:
        """End the parser's process."""
        self._guard.close()

    @cached_property
    def _guard(self) -> Guard:
        return Guard(html_text.extract, self.settings.seconds, html_text.prepare)

    def _extracted(self, row: Row) -> tuple[str, Check | None]:
        options = {
            "favor_precision": self.settings.favor_precision,
            "include_comments": self.settings.comments,
            "include_tables": self.settings.tables,
            "deduplicate": self.settings.deduplicate,
            "fast": self.settings.fast,
        }
        try:
            return self._guard((row.document.html, row.document.charset, options)), None
        except TimedOut:
            return "", Check("timeout", True, self.settings.seconds, self.settings.seconds)
        except Crashed as e:
            return "", Check("crash", True, detail=e.how)
        except Failed as e:
            return "", Check("failure", True, detail=str(e).strip().split("\n")[-1])
