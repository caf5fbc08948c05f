"""Text and token ids on the command line: streams both ways, and a coloured look at how a text is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import log2
from typing import TYPE_CHECKING

from llmctl.errors import UserError
from llmctl.model.tokenizer import Tokenizer
from llmctl.workspace import Workspace

if TYPE_CHECKING:
    from rich.text import Text

# Backgrounds that neighbours can be told apart by, with black print readable on all of them.
_COLOURS = ("#8dd3c7", "#ffffb3", "#bebada", "#fb8072", "#80b1d3", "#fdb462", "#b3de69", "#fccde5")


def load_any_tokenizer(workspace: Workspace, value: str) -> Tokenizer:
    """A tokenizer by name (of a tokenizer, or of a model or tokens that carry one) or by path."""
    found = workspace.resolve(value, ("tokenizer", "model", "tokens"), files=True)
    if found.kind == "hub":
        raise UserError(f"{value}: a tokenizer on the hub is not read yet", fix="download its tokenizer.json")
    return Tokenizer.load(found.path / "tokenizer" if found.kind == "tokens" else found.path)


def encode_stream(lines: Iterable[str], tokenizer: Tokenizer, special: bool = False) -> Iterator[str]:
    """A line of ids for each line of text; each line is a text of its own, without its newline."""
    return (" ".join(map(str, tokenizer.encode(line.rstrip("\r\n"), special))) for line in lines)


def decode_stream(lines: Iterable[str], tokenizer: Tokenizer) -> Iterator[str]:
    """A line of text for each line of ids, separated by spaces or commas. UserError for what is no id."""
    for number, line in enumerate(lines, 1):
        ids = []
        for word in line.replace(",", " ").replace("[", " ").replace("]", " ").split():
            if not word.isdecimal() or int(word) >= tokenizer.vocab_size:
                fix = f"ids are whole numbers from 0 to {tokenizer.vocab_size - 1}"
                raise UserError(f"{word!r} is no token id", f"line {number}", fix)
            ids.append(int(word))
        yield tokenizer.decode(ids)


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
