"""What a person sees: progress, tables and closing lines on stderr; data on stdout.

Rich is imported when something is drawn, so that `--help` and pipes do not pay for it. Where stderr is no terminal
there are no bars: a line now and then says how far the work is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_PLAIN_EVERY = 30.0  # seconds between the lines that stand in for a bar


class Console:
    """The one way to print. `quiet` keeps only errors and data; `json_mode` makes stdout one JSON value."""

    def __init__(self, quiet: bool = False, json_mode: bool = False) -> None:
        self.quiet, self.json_mode = quiet, json_mode
        self._rich: Any = None

    @property
    def live(self) -> bool:
        """True where bars and colours may be drawn."""
        return not self.quiet and sys.stderr.isatty()

    @property
    def rich(self) -> Any:
        """The `rich.console.Console` on stderr."""
        if self._rich is None:
            from rich.console import Console as Rich

            # Logs and files have no width of their own; 80 columns would break every table to pieces.
            width = None if sys.stderr.isatty() else 160
            self._rich = Rich(stderr=True, highlight=False, soft_wrap=True, width=width)
        return self._rich

    def info(self, text: str) -> None:
        """One line on stderr."""
        if not self.quiet:
            self._line(text)

    def warn(self, text: str) -> None:
        """One line on stderr that is shown even with -q."""
        self._line(f"warning: {text}", "yellow")

    def done(self, text: str, then: str = "") -> None:
        """The closing line of a stage, and what to type next."""
        if not self.quiet:
            self._line(text, "green")
            if then:
                self._line(f"next: {then}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table on stderr."""
        if self.quiet:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title or None, title_justify="left", header_style="bold")
        for c in columns:
            table.add_column(c, overflow="fold")
        for row in rows:
            table.add_row(*(Text(_plain(v)) for v in row))  # as text: rich would take `[search: tea]` for markup
        self.rich.print(table)

    def print(self, text: str) -> None:
        """Data: one line on stdout."""
        sys.stdout.write(text + "\n")

    def print_json(self, value: Any) -> None:
        """Data: one JSON value on stdout."""
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")

    @contextmanager
    def progress(self, title: str, total: int | None, unit: str = "") -> Iterator[Progress]:
        """A bar with rate and time left. `with console.progress("filter", n, "docs") as bar: bar.advance(1)`."""
        bar = Progress(self, title, total, unit)
        try:
            yield bar
        finally:
            bar.close()

    def _line(self, text: str, style: str = "") -> None:
        if sys.stderr.isatty():
            from rich.text import Text

            self.rich.print(Text(text, style=style))
        else:
            print(text, file=sys.stderr, flush=True)


class Progress:
    """One line of progress: a live bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, console: Console, title: str, total: int | None, unit: str) -> None:
        self.console, self.title, self.total, self.unit = console, title, total, unit
        self.count, self._begun, self._said, self._note = 0, time.monotonic(), time.monotonic(), ""
        self._counted_before = 0
        self._bar: Any = None
        self._task: Any = None
        if console.live:
            self._open_bar()

    def start_at(self, count: int) -> None:
        """Where a resumed run begins; what was done before does not count into the rate."""
        self._counted_before = count
        self.advance(count - self.count)

    def advance(self, by: int = 1, note: str | None = None) -> None:
        """Go on by `by` units; `note` is shown behind the bar (a loss, a host name)."""
        self.count += by
        if note is not None:
            self._note = note
        if self._bar is not None:
            self._bar.update(self._task, advance=by, note=self._note, rate=self._rate())
        elif not self.console.quiet and time.monotonic() - self._said > _PLAIN_EVERY:
            self._said = time.monotonic()
            of = f"/{self.total:,}" if self.total else ""
            self.console.info(f"{self.title}: {self.count:,}{of} {self.unit} {self._rate()} {self._note}".rstrip())

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _rate(self) -> str:
        seconds = time.monotonic() - self._begun
        if seconds < 0.5:
            return ""
        rate = (self.count - self._counted_before) / seconds
        return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2f}/s"

    def _open_bar(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(self.unit),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console.rich,
            transient=True,
        )
        self._task = self._bar.add_task(self.title, total=self.total, note="", rate="")
        self._bar.start()


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
