"""The look at a text as one self-contained page: it loads nothing, and needs no script."""

from __future__ import annotations

import html

from llmctl.model.tokenizer import Tokenizer
from llmctl.report.html import Html, page, section, tag
from llmctl.tokenize.show import COLOURS, Piece, bits, pieces, text_bytes, titles

_STYLE = """
<style>
.cut{font:1rem/2.1 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere;margin:0}
.cut span{color:#111;border-radius:3px;padding:.15em 0}
.cut span.special{color:#fff;background:#111;outline:1px solid #fb8072;font-weight:700;padding:.15em .3em}
.cut span:hover{outline:2px solid var(--bar)}
.ids span{margin-right:.35em;padding:.15em .3em;display:inline-block;line-height:1.3}
.raw{font:.85rem/1.5 ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere;color:var(--dim)}
%s
</style>
"""


def as_page(text: str, tokenizer: Tokenizer, name: str, special: bool = False) -> str:
    """The page: the pieces in colour, their ids, the bytes and the bits. Pointing at a piece tells its id and bytes."""
    cut, data, heads = pieces(text, tokenizer, special), text_bytes(text), titles(text, tokenizer, special)
    colours = "\n".join(f".c{n}{{background:{colour}}}" for n, colour in enumerate(COLOURS))
    parts = [
        Html(_STYLE % colours),
        section(heads["text"], tag("p", *(_span(n, p, _line_ends(p.reads)) for n, p in enumerate(cut)), cls="cut")),
        section(heads["tokens"], tag("p", *(_span(n, p, str(p.id)) for n, p in enumerate(cut)), cls="cut ids")),
        section(heads["bytes"], tag("p", " ".join(map(str, data)), cls="raw")),
        section(heads["bits"], tag("p", bits(data), cls="raw")),
    ]
    return page("A text in tokens", parts, f"tokenizer: {name}")


def _span(number: int, piece: Piece, shown: str) -> Html:
    told = f"id {piece.id}, bytes {' '.join(map(str, piece.raw))}" + (", special" if piece.special else "")
    kind = "special" if piece.special else f"c{number % len(COLOURS)}"
    # Not report's own escaping, which replaces what does not print: joiners and marks are what one looks for here.
    return Html(f'<span class="{kind}" title="{told}">{html.escape(shown)}</span>')


def _line_ends(reads: str) -> str:
    return reads.replace("\n", "⏎\n")
