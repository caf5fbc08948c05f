"""A histogram small enough to stand in a table cell, dozens to a page: plain SVG in the page's own colours.

Matplotlib takes 50 ms and 10 kB for one; a page of forty rules needs less of both.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.report.html import Html, text

_WIDTH, _HEIGHT = 220, 56


def histogram(counts: Sequence[int], low: float, high: float, mark: float | None = None, label: str = "") -> Html:
    """Bars of `counts` over equal bins from `low` to `high`; a line at `mark` where it lies between them."""
    top, width = max(counts, default=0) or 1, _WIDTH / max(len(counts), 1)
    bars = "".join(
        f'<rect x="{i * width:.1f}" y="{_HEIGHT - h:.1f}" width="{max(width - 0.6, 0.4):.1f}" height="{h:.1f}"/>'
        for i, n in enumerate(counts)
        if (h := _HEIGHT * (n / top) ** 0.5)  # the root keeps rare values visible
    )
    line = ""
    if mark is not None and high > low and low <= mark <= high:
        x = _WIDTH * (mark - low) / (high - low)
        line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}" stroke="#D55E00" stroke-width="2"/>'
    ends = (
        f'<text x="0" y="{_HEIGHT + 11}" font-size="10">{low:.3g}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT + 11}" font-size="10" text-anchor="end">{high:.3g}</text>'
    )
    return Html(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 14}" width="{_WIDTH}" role="img" aria-label="{text(label)}" '
        f'fill="currentColor">{bars}{line}{ends}</svg>'
    )
