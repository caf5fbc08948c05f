"""One self-contained page: no script, no request to anywhere, readable on a phone, in the dark and with the style off.

Everything that goes in is escaped unless it is `Html`, which only the functions here make. The page carries a policy
that forbids it to load anything, so a hole in the escaping could show nonsense but not call home.
"""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmctl.report.plots import Chart
from llmctl.report.style import SORTS, STYLE


class Html(str):
    """Markup that is already safe."""


@dataclass(frozen=True)
class Reply:
    """What one model answered to an example: right or wrong (or what `verdict` calls it instead), and a note."""

    by: str
    text: str
    right: bool
    note: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Example:
    """One item as it can be opened on the page."""

    question: str
    expected: str
    replies: Sequence[Reply] = field(default_factory=list)


def text(value: object) -> Html:
    """`value` escaped; `Html` passes, None is empty, numbers get thousands separators."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("")
    if isinstance(value, bool):
        return Html("yes" if value else "no")
    if isinstance(value, int):
        return Html(f"{value:,}")
    if isinstance(value, float):
        return Html(f"{value:,.4g}")
    # Control characters and lone surrogates (a model's raw bytes) are no characters of HTML or of UTF-8.
    kept = "".join(c if c in "\n\t" or c.isprintable() or c.isspace() else "�" for c in str(value))
    return Html(html.escape(kept.encode("utf-8", "replace").decode(), quote=True))


def tag(name: str, *inner: object, cls: str = "") -> Html:
    """`<name class="cls">inner</name>`."""
    attribute = f' class="{text(cls)}"' if cls else ""
    return Html(f"<{name}{attribute}>{''.join(text(i) for i in inner)}</{name}>")


def paragraph(*inner: object) -> Html:
    """A paragraph."""
    return tag("p", *inner)


def section(title: str, *inner: object) -> Html:
    """A heading and what stands below it; empty where there is nothing."""
    body = Html("".join(text(i) for i in inner))
    return Html(f"<section><h2>{text(title)}</h2>{body}</section>") if body else Html("")


def folded(summary: object, *inner: object, opened: bool = False) -> Html:
    """A block that opens on a click."""
    body = "".join(text(i) for i in inner)
    return Html(f"<details{' open' if opened else ''}><summary>{text(summary)}</summary>{body}</details>")


def table(columns: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "") -> Html:
    """A table that scrolls sideways on its own when it is wider than the screen. The first cell of a row heads it."""
    head = "".join(f'<th scope="col">{text(c)}</th>' for c in columns)
    body = "".join("<tr>" + "".join(_cell(v, first=i == 0) for i, v in enumerate(row)) + "</tr>" for row in rows)
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return Html(f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def interval(value: str, low: str, high: str, share: float | None = None, note: str = "") -> Html:
    """A score with its interval in small type; `share` (0 to 1) draws a bar below it."""
    meter = ""
    if share is not None:
        meter = f'<span class="meter"><i style="width:{100 * min(1.0, max(0.0, share)):.1f}%"></i></span>'
    small = f"{text(low)} – {text(high)}" + (f" · {text(note)}" if note else "")
    return Html(f"<b>{text(value)}</b> <small>{small}</small>{meter}")


def chart(drawn: Chart) -> Html:
    """A chart in the page's own colours, with its title as caption."""
    return Html(f"<figure><figcaption>{text(drawn.title)}</figcaption>{drawn.svg}</figure>")


def charts(drawn: Sequence[Chart]) -> Html:
    """Charts side by side where there is room."""
    return tag("div", *(chart(c) for c in drawn), cls="charts") if drawn else Html("")


def image(png: bytes, caption: str) -> Html:
    """A PNG inside the page."""
    data = base64.b64encode(png).decode("ascii")
    return Html(
        f'<figure><figcaption>{text(caption)}</figcaption><img alt="{text(caption)}" '
        f'src="data:image/png;base64,{data}"></figure>'
    )


def example(item: Example, *more: object) -> Html:
    """One item: closed it shows the question and a mark for each model, open what was expected and what each said.

    `more` stands below the replies.
    """
    marks = "".join(
        f'<span class="{"right" if r.right else "wrong"}" title="{text(r.by)}">{"✓" if r.right else "✗"}</span>'
        for r in item.replies
    )
    head = Html(f'<span class="marks">{marks}</span> {text(_short(item.question))}')
    parts = [tag("dt", "asked"), tag("dd", tag("pre", item.question))]
    parts += [tag("dt", "expected"), tag("dd", tag("pre", item.expected))] if item.expected else []
    replies = [tag("dl", *_reply(r)) for r in item.replies]
    shown = tag("div", *replies, cls="sides") if len(replies) == 2 else Html("".join(replies))
    return folded(head, tag("dl", *parts), shown, *more)


def _reply(r: Reply) -> tuple[Html, Html]:
    """Who answered and whether rightly, and the answer. Two of them stand side by side where there is room."""
    verdict = r.verdict or ("right" if r.right else "wrong")
    mark = tag("span", f"{'✓' if r.right else '✗'} {verdict}", cls="right" if r.right else "wrong")
    note = tag("small", f" {r.note}") if r.note else Html("")
    return tag("dt", r.by, " ", mark, note), tag("dd", tag("pre", r.text or "(nothing)"))


def filtered(name: str, blocks: Sequence[tuple[str, Html]]) -> Html:
    """`blocks`, each of a sort, with a button a sort that hides the others: radio buttons and a style, no script.

    `name` is unique on the page. No more than `SORTS` sorts; with one there is nothing to choose.
    """
    sorts = list(dict.fromkeys(sort for sort, _ in blocks))
    assert len(sorts) <= SORTS, sorts
    if len(sorts) < 2:
        return Html("".join(block for _, block in blocks))
    choices = [("all", len(blocks)), *((s, sum(s == sort for sort, _ in blocks)) for s in sorts)]
    buttons = "".join(
        f'<input type="radio" class="c{i}" name="{text(name)}" id="{text(name)}-{i}"{"" if i else " checked"}>'
        f'<label for="{text(name)}-{i}">{text(label)} {count:,}</label>'
        for i, (label, count) in enumerate(choices)
    )
    kept = "".join(f'<div class="s{sorts.index(sort) + 1}">{block}</div>' for sort, block in blocks)
    return Html(f'<div class="filter">{buttons}<div class="kept">{kept}</div></div>')


def write_page(path: Path, title: str, parts: Iterable[object], subtitle: str = "") -> Path:
    """Write the page to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_text(page(title, parts, subtitle), encoding="utf-8")
    return beside.replace(path)


def page(title: str, parts: Iterable[object], subtitle: str = "") -> str:
    """The whole document."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><main>"
        f"<header><h1>{text(title)}</h1>{tag('p', subtitle, cls='sub') if subtitle else ''}</header>\n"
        + "\n".join(text(p) for p in parts if p)
        + "\n</main></body></html>\n"
    )


def _cell(value: object, first: bool) -> str:
    return f'<th scope="row">{text(value)}</th>' if first else f"<td>{text(value)}</td>"


def _short(question: str, most: int = 110) -> str:
    line = " ".join(question.split())
    return line if len(line) <= most else line[: most - 1] + "…"
