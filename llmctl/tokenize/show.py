"""A look at how a text is cut: its pieces in colour, their ids, and the text counted in every unit."""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

from llmctl.model.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rich.text import Text

# Backgrounds that neighbours can be told apart by, with black print readable on all of them.
_COLOURS = ("#8dd3c7", "#ffffb3", "#bebada", "#fb8072", "#80b1d3", "#fdb462", "#b3de69", "#fccde5")


def counts(text: str, tokenizer: Tokenizer, special: bool = False) -> dict[str, int]:
    """How long a text is, in everything it can be counted in. `token_bits`: the tokens, each as log2(vocabulary)."""
    size, tokens = len(text.encode("utf-8", "replace")), len(tokenizer.encode(text, special))
    return {
        "characters": len(text),
        "bytes": size,
        "bits": 8 * size,
        "tokens": tokens,
        "token_bits": round(tokens * log2(max(2, tokenizer.vocab_size))),
    }


def pieces(text: str, tokenizer: Tokenizer, special: bool = False) -> list[tuple[int, str]]:
    """(id, how it reads) of each token; bytes that are no whole characters as \\xNN."""
    return [(i, _readable(tokenizer.token_bytes(i))) for i in tokenizer.encode(text, special)]


def show(text: str, tokenizer: Tokenizer, special: bool = False) -> Text:
    """The text in coloured pieces, the ids in the same colours, and the counts."""
    from rich.text import Text

    cut, ids = Text(), Text()
    for n, (token, reads) in enumerate(pieces(text, tokenizer, special)):
        style = f"black on {_COLOURS[n % len(_COLOURS)]}"
        for m, line in enumerate(reads.split("\n")):
            if m:
                cut.append("⏎", style).append("\n")
            cut.append(line, style)
        ids.append(str(token), style).append(" ")
    c = counts(text, tokenizer, special)
    summary = (
        f"{c['characters']:,} characters = {c['bytes']:,} bytes = {c['bits']:,} bits; "
        f"{c['tokens']:,} tokens of {tokenizer.vocab_size:,} = {c['token_bits']:,} bits"
    )
    return Text("\n\n").join([cut, ids, Text(summary)])


def _readable(piece: bytes) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{b:02x}" for b in piece)
