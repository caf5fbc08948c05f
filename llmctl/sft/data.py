"""Conversations from wherever they lie, the part to train on and the part to measure with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.formats.answer_order import answers_first
from llmctl.formats.conversations import Conversations, read_conversations
from llmctl.formats.oasst import Paths
from llmctl.model.chat_format import ASSISTANT, render
from llmctl.model.tokenizer import Tokenizer
from llmctl.tools.search import read_library
from llmctl.workspace import Workspace

Row = Mapping[str, Any]
Example = tuple[list[int], list[bool]]  # ids, and which of them are trained on


@dataclass
class Data:
    """Rows of {"messages": [...]} and what else they carry. `library` holds the documents that there are to look up."""

    train: list[Row] = field(default_factory=list)
    heldout: list[Row] = field(default_factory=list)
    library: list[tuple[str, str]] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)  # a source each
    skipped: list[str] = field(default_factory=list)  # rows that could not be read
    silent: list[str] = field(default_factory=list)  # those of them in which nobody is answered
    unfilled: set[str] = field(default_factory=set)  # names in double braces without a value
    guesses: list[str] = field(default_factory=list)  # answers before their reasoning, in the training rows
    dropped: int = 0  # rows with such an answer that were left out
    overlap: int = 0  # training rows left out since their question is held out elsewhere


def load(
    sources: Sequence[str],
    share: float,
    workspace: Workspace,
    trees: Paths = "best",
    values: dict[str, str] | None = None,
    drop_guesses: bool = False,
) -> Data:
    """Read every source; UserError where nothing is left to train on."""
    data = Data()
    for value in sources:
        source = workspace.resolve(value, ("conversations",), files=True)
        found = _read(data, source.path, "train", trees, values)
        data.formats.append(f"{value}: {found.format}, {len(found.rows):,} conversations")
        kept = source.path / "heldout.jsonl"
        if kept.is_file():
            data.train += found.rows
            data.heldout += _read(data, source.path, "heldout", trees, values).rows if kept.stat().st_size else []
        else:
            for row in found.rows:
                (data.heldout if is_held_out(row, share) else data.train).append(row)
        if (source.path / "library.jsonl").is_file():
            data.library += read_library(source)
    kept_back = {question_of(row) for row in data.heldout}
    fresh = [row for row in data.train if question_of(row) not in kept_back]
    data.overlap, data.train = len(data.train) - len(fresh), fresh
    _look_for_guesses(data, drop_guesses)
    if not data.train:
        raise UserError("there are no conversations to train on", ", ".join(sources), "give more, or heldout_share=0")
    return data


def _read(data: Data, path: Path, split: str, trees: Paths, values: dict[str, str] | None) -> Conversations:
    found = read_conversations(path, split, trees, values)
    data.skipped += map(str, found.skipped)
    data.silent += map(str, found.silent)
    data.unfilled |= found.placeholders
    return found


def _look_for_guesses(data: Data, drop: bool) -> None:
    guesses = dict(answers_first(data.train))
    data.guesses = [found.stated for found in guesses.values()]
    if drop:
        data.train = [row for i, row in enumerate(data.train) if i not in guesses]
        data.dropped = len(guesses)


def calls_tools(rows: Sequence[Row]) -> bool:
    """Whether an assistant calls a tool in any of them."""
    return any(not isinstance(message["content"], str) for row in rows for message in row["messages"])


def question_of(row: Row) -> str:
    """What was said before the first answer."""
    asked = []
    for message in row["messages"]:
        if message["role"] == ASSISTANT:
            break
        asked.append([message["role"], message["content"]])
    return json.dumps(asked, ensure_ascii=False)


def is_held_out(row: Row, share: float) -> bool:
    """True for about `share` of all questions, the same ones everywhere and always."""
    digest = hashlib.sha256(question_of(row).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclass
class Rendered:
    """What became of rows as token ids."""

    examples: list[Example] = field(default_factory=list)
    shortened: int = 0  # too long: trained on up to the last answer that fits
    too_long: int = 0  # not even the first answer fits


def rendered(rows: Sequence[Row], tokenizer: Tokenizer, length: int) -> Rendered:
    """Ids and masks of at most `length` + 1 tokens. An answer is never cut.

    UserError for a conversation with nothing to train on: a run that learns nothing must not look like one that does.
    """
    found = Rendered()
    for row in rows:
        whole = render(row["messages"], tokenizer)
        if not any(whole.mask):
            shown = json.dumps(row["messages"], ensure_ascii=False)[:200]
            raise UserError("a conversation has nothing to train on: no assistant says a word in it", shown)
        if len(whole) <= length + 1:
            found.examples.append((whole.ids, whole.mask))
        elif fitting := _fitting(row["messages"], tokenizer, length):
            found.examples.append(fitting)
            found.shortened += 1
        else:
            found.too_long += 1
    return found


def _fitting(messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, length: int) -> Example | None:
    """The longest beginning of a conversation that ends with an answer and fits."""
    for end in range(len(messages) - 1, 0, -1):
        if messages[end - 1]["role"] == ASSISTANT:
            part = render(messages[:end], tokenizer)
            if len(part) <= length + 1 and any(part.mask):
                return part.ids, part.mask
    return None
