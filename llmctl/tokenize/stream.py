"""`llmctl tokenize -`: text to ids and ids to text, line by line through a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.model.tokenizer import Tokenizer
from llmctl.tokenize.show import counts, pieces, show
from llmctl.workspace import Workspace

_KINDS = ("tokenizer", "model", "tokens")


def pipe(
    workspace: Workspace,
    console: Console,
    value: str,
    source: IO[bytes],
    sink: IO[bytes],
    *,
    decode: bool = False,
    show: bool = False,
) -> None:
    """Read `source` to its end and write what was asked for to `sink`, a line out for each line in.

    `value` names the tokenizer; without one, the only one there is. In the console's JSON mode it is one value instead.
    """
    tokenizer = load_any_tokenizer(workspace, value or _only_tokenizer(workspace))
    lines = (raw.decode("utf-8", "replace") for raw in source)
    if show:
        _show(console, "".join(lines).removesuffix("\n"), tokenizer, sink)
        return
    if console.json_mode:
        found = list(decode_stream(lines, tokenizer) if decode else map(tokenizer.encode, map(_without_end, lines)))
        console.print_json(found)
        return
    for line in decode_stream(lines, tokenizer) if decode else encode_stream(lines, tokenizer):
        sink.write(line.encode() + b"\n")
        sink.flush()


def load_any_tokenizer(workspace: Workspace, value: str) -> Tokenizer:
    """A tokenizer by name (of a tokenizer, or of a model or tokens that carry one) or by path."""
    found = workspace.resolve(value, _KINDS, files=True)
    if found.kind == "hub":
        raise UserError(f"{value}: a tokenizer on the hub is not read yet", fix="download its tokenizer.json")
    return Tokenizer.load(found.path / "tokenizer" if found.kind == "tokens" else found.path)


def encode_stream(lines: Iterable[str], tokenizer: Tokenizer, special: bool = False) -> Iterator[str]:
    """A line of ids for each line of text; each line is a text of its own, without its newline."""
    return (" ".join(map(str, tokenizer.encode(_without_end(line), special))) for line in lines)


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


def _show(console: Console, text: str, tokenizer: Tokenizer, sink: IO[bytes]) -> None:
    if console.json_mode:
        cut = [{"id": i, "text": t} for i, t in pieces(text, tokenizer)]
        console.print_json({"pieces": cut, "counts": counts(text, tokenizer)})
        return
    import io

    from rich.console import Console as Rich

    page = io.StringIO()
    Rich(file=page, force_terminal=sink.isatty(), highlight=False, soft_wrap=True).print(show(text, tokenizer))
    sink.write(page.getvalue().encode())
    sink.flush()


def _without_end(line: str) -> str:
    return line.rstrip("\r\n")


def _only_tokenizer(workspace: Workspace) -> str:
    there = [a.name for a in workspace.artifacts("tokenizer")]
    if len(there) == 1:
        return f"tokenizer/{there[0]}"
    have = f"there: {', '.join(there)}" if there else "make one: `llmctl tokenize CORPUS`"
    raise UserError("which tokenizer? Name it with --tokenizer", fix=have)
