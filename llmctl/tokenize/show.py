"""A look at how a text is cut: its pieces in colour with their ids, and the same text as bits, bytes and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import TYPE_CHECKING

from llmctl.model.tokenizer import Tokenizer, well_formed

if TYPE_CHECKING:
    from rich.text import Text

# Backgrounds that neighbours can be told apart by, with black print readable on all of them.
COLOURS = ("#8dd3c7", "#ffffb3", "#bebada", "#fb8072", "#80b1d3", "#fdb462", "#b3de69", "#fccde5")
# How many bytes a terminal gets to see; the page shows all.
_FEW = 64


@dataclass(frozen=True)
class Piece:
    """One token: its id, its bytes, and how it reads; `special` where it stands for no text."""

    id: int
    raw: bytes
    special: bool

    @property
    def reads(self) -> str:
        """Its characters; bytes that are no whole character, and control characters, as `<0xE2>`."""
        return readable(self.raw)


def pieces(text: str, tokenizer: Tokenizer, special: bool = False) -> list[Piece]:
    """The tokens of a text. `special`: names of special tokens in it are read as such."""
    names = set(tokenizer.specials.values()) if special else set()
    return [Piece(i, tokenizer.token_bytes(i), i in names) for i in tokenizer.encode(text, special)]


def counts(text: str, tokenizer: Tokenizer, special: bool = False) -> dict[str, int]:
    """How long a text is, in everything it can be counted in. `token_bits`: the tokens, each as log2(vocabulary)."""
    size, tokens = len(text_bytes(text)), len(tokenizer.encode(text, special))
    return {
        "characters": len(text),
        "bytes": size,
        "bits": 8 * size,
        "tokens": tokens,
        "token_bits": round(tokens * log2(max(2, tokenizer.vocab_size))),
    }


def text_bytes(text: str) -> bytes:
    """What is tokenized: UTF-8, with U+FFFD for what is no text."""
    return well_formed(text).encode()


def readable(piece: bytes) -> str:
    """Bytes as text; those that are no whole character, and control characters, as `<0xE2>`."""
    found = ""
    while piece:
        try:
            found, piece = found + piece.decode(), b""
        except UnicodeDecodeError as e:
            # Whole characters, then what cannot be read: marked by lone surrogates until all is one string.
            found += piece[: e.start].decode() + "".join(chr(0xDC00 + b) for b in piece[e.start : e.end])
            piece = piece[e.end :]
    return "".join(map(_visible, found))


def bits(data: bytes) -> str:
    """Each byte as its eight bits."""
    return " ".join(f"{b:08b}" for b in data)


def titles(text: str, tokenizer: Tokenizer, special: bool = False) -> dict[str, str]:
    """The heading of each view: what it is, and how much of it."""
    c = counts(text, tokenizer, special)
    ratio = f", {c['bytes'] / c['tokens']:.2f} bytes a token" if c["tokens"] else ""
    return {
        "text": f"text: {c['characters']:,} characters",
        "bits": f"bits: {c['bits']:,}, each one of 2",
        "bytes": f"bytes: {c['bytes']:,}, each one of 256",
        "tokens": f"tokens: {c['tokens']:,}, each one of {tokenizer.vocab_size:,}{ratio} ({c['token_bits']:,} bits)",
    }


def show(text: str, tokenizer: Tokenizer, special: bool = False) -> Text:
    """All views for a terminal; long runs of bits and bytes are cut."""
    from rich.text import Text

    cut, ids = Text(), Text()
    for n, piece in enumerate(pieces(text, tokenizer, special)):
        style = "bold white on black" if piece.special else f"black on {COLOURS[n % len(COLOURS)]}"
        for m, line in enumerate(piece.reads.split("\n")):
            if m:
                cut.append("⏎", style).append("\n")
            cut.append(line, style)
        ids.append(str(piece.id), style).append(" ")
    data = text_bytes(text)
    shown = {
        "text": cut,
        "bits": Text(_shortened(bits(data[: _FEW // 8]), len(data) > _FEW // 8)),
        "bytes": Text(_shortened(" ".join(map(str, data[:_FEW])), len(data) > _FEW)),
        "tokens": ids,
    }
    heads = titles(text, tokenizer, special)
    return Text("\n\n").join(Text("\n").join([Text(heads[view], "bold"), body]) for view, body in shown.items())


def as_json(text: str, tokenizer: Tokenizer, special: bool = False) -> dict[str, object]:
    """The same as one JSON value."""
    cut: Sequence[Piece] = pieces(text, tokenizer, special)
    return {
        "pieces": [{"id": p.id, "text": p.reads, "bytes": list(p.raw), "special": p.special} for p in cut],
        "counts": counts(text, tokenizer, special),
    }


def _visible(character: str) -> str:
    """A character as it may be printed: a control character could otherwise command the terminal."""
    point = ord(character)
    if 0xDC80 <= point <= 0xDCFF:
        return f"<0x{point - 0xDC00:02X}>"
    if character in "\n\t" or not (point < 0x20 or 0x7F <= point < 0xA0):
        return character
    return "".join(f"<0x{b:02X}>" for b in character.encode())


def _shortened(line: str, cut: bool) -> str:
    return line + (" ..." if cut else "")
