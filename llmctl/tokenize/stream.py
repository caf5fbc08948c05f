"""`llmctl tokenize -`: text to ids and ids to text, line by line through a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.model.tokenizer import Tokenizer
from llmctl.tokenize.page import as_page
from llmctl.tokenize.show import as_json, show
from llmctl.workspace import Workspace
from llmctl.workspace.files import write_atomic

_KINDS = ("tokenizer", "model", "tokens")


@dataclass(frozen=True)
class How:
    """What is wanted of a text: by default, its ids."""

    decode: bool = False
    """Ids come in, text goes out."""
    show: bool = False
    """The pieces in colour, and the text counted in every unit."""
    html: Path | None = None
    """The same as a page in this file."""
    special: bool = False
    """Special tokens in the text are read as such."""
    overwrite: bool = False


def pipe(
    workspace: Workspace,
    console: Console,
    value: str,
    source: IO[bytes],
    sink: IO[bytes],
    how: How = How(),
) -> None:
    """Read `source` to its end and write what was asked for to `sink`, a line out for each line in.

    `value` names the tokenizer; without one, the only one there is. In the console's JSON mode it is one value instead.
    """
    if how.html is not None and how.html.exists() and not how.overwrite:
        raise UserError("it exists already", str(how.html), "choose another name, or --overwrite")
    value = value or _only_tokenizer(workspace)
    tokenizer = load_any_tokenizer(workspace, value)
    lines = (raw.decode("utf-8", "replace") for raw in source)
    if how.show or how.html is not None:
        _look(console, "".join(lines).removesuffix("\n"), tokenizer, value, sink, how)
        return
    if console.json_mode:
        found = decode_stream(lines, tokenizer) if how.decode else _encoded(lines, tokenizer, how.special)
        console.print_json(list(found))
        return
    for line in decode_stream(lines, tokenizer) if how.decode else encode_stream(lines, tokenizer, how.special):
        sink.write(line.encode() + b"\n")
        sink.flush()


def load_any_tokenizer(workspace: Workspace, value: str) -> Tokenizer:
    """A tokenizer by name (of a tokenizer, or of a model or tokens that carry one) or by path."""
    found = workspace.resolve(value, _KINDS, files=True)
    return Tokenizer.load(found.path / "tokenizer" if found.kind == "tokens" else found.path)


def encode_stream(lines: Iterable[str], tokenizer: Tokenizer, special: bool = False) -> Iterator[str]:
    """A line of ids for each line of text; each line is a text of its own, without its newline."""
    return (" ".join(map(str, ids)) for ids in _encoded(lines, tokenizer, special))


def decode_stream(lines: Iterable[str], tokenizer: Tokenizer) -> Iterator[str]:
    """A line of text for each line of ids, separated by spaces or commas. UserError for what is no id."""
    for number, line in enumerate(lines, 1):
        ids = []
        for word in line.translate(str.maketrans(",[]", "   ")).split():
            if not (word.isascii() and word.isdecimal() and int(word) < tokenizer.vocab_size):
                fix = f"ids are whole numbers from 0 to {tokenizer.vocab_size - 1}"
                raise UserError(f"{word!r} is no token id", f"line {number}", fix)
            ids.append(int(word))
        yield tokenizer.decode(ids)


def _look(console: Console, text: str, tokenizer: Tokenizer, name: str, sink: IO[bytes], how: How) -> None:
    if how.html is not None:
        write_atomic(how.html, as_page(text, tokenizer, name, how.special))
        console.done(f"tokenize: {how.html}")
    if console.json_mode:
        console.print_json(as_json(text, tokenizer, how.special))
    elif how.show:
        import io

        from rich.console import Console as Rich

        page = io.StringIO()
        rich = Rich(file=page, force_terminal=sink.isatty() or None, highlight=False, soft_wrap=True)
        rich.print(show(text, tokenizer, how.special))
        sink.write(page.getvalue().encode())
        sink.flush()


def _encoded(lines: Iterable[str], tokenizer: Tokenizer, special: bool) -> Iterator[list[int]]:
    return (tokenizer.encode(line.rstrip("\r\n"), special) for line in lines)


def _only_tokenizer(workspace: Workspace) -> str:
    there = [a.name for a in workspace.artifacts("tokenizer")]
    if len(there) == 1:
        return f"tokenizer/{there[0]}"
    have = f"there: {', '.join(there)}" if there else "make one: `llmctl tokenize CORPUS`"
    raise UserError("which tokenizer? Name it with --tokenizer", fix=have)
