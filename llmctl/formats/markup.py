"""Conversations written down as a model sees them: our protocol, ChatML and Llama 3's, as one text.

    <|im_start|>user<|im_sep|>What is 2+2?<|im_end|><|im_start|>assistant<|im_sep|>It is 4.<|im_end|>
    <|im_start|>user\\nWhat is 2+2?<|im_end|>\\n<|im_start|>assistant\\nIt is 4.<|im_end|>\\n
    <|start_header_id|>user<|end_header_id|>\\n\\nWhat is 2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>...

Only the turns count: which markers stand between them is forgotten, since every model is trained in its own format. A
file of such text (`.txt`) holds a conversation after another, with an empty line or an end of document between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from llmctl.formats.turns import Message, Unusable, message

_TURN = {
    "im_sep text": re.compile(r"<\|im_start\|>([^<>\n]{1,40})<\|im_sep\|>(.*?)(<\|im_end\|>|\Z)", re.DOTALL),
    "ChatML text": re.compile(r"<\|im_start\|>([^<>\n]{1,40})(?:\n|\Z)(.*?)(<\|im_end\|>|\Z)", re.DOTALL),
    "Llama 3 text": re.compile(
        r"<\|start_header_id\|>([^<>\n]{1,40})<\|end_header_id\|>\s*(.*?)\s*(<\|eot_id\|>|<\|eom_id\|>|\Z)", re.DOTALL
    ),
}
_START = re.compile(r"<\|im_start\|>|<\|start_header_id\|>")
_BETWEEN = re.compile(r"\s*(?:<\|(?:begin_of_text|end_of_text|endoftext)\|>|</?s>)?\s*")
_TOOL = re.compile(r"<\|(search|python|output)_start\|>(.*?)<\|\1_end\|>", re.DOTALL)
# Where one conversation of a file ends: behind the end of a turn comes an empty line, or a document's beginning or end.
_NEXT = re.compile(
    r"(?<=_end\|>)[ \t]*\n[ \t]*\n\s*(?=<\||$)|(?<=eot_id\|>)[ \t]*\n[ \t]*\n\s*(?=<\||$)"
    r"|<\|endoftext\|>|<\|end_of_text\|>|(?=<\|begin_of_text\|>)"
)


def markup_of(text: str) -> str | None:
    """The name of the markup that a text is written in; None for other text."""
    found = _START.search(text)
    if not found or not _BETWEEN.fullmatch(text[: found.start()]):
        return None
    return next((name for name, turn in _TURN.items() if turn.match(text, found.start())), None)


def split_markup(text: str) -> list[Message]:
    """The turns of such a text; none for other text. An open turn without words at its end, a prompt's, is left out.

    Unusable where something stands between two turns, or a turn begins within another.
    """
    name = markup_of(text)
    turns: list[Message] = []
    at = 0
    for found in _TURN[name].finditer(text) if name else ():
        if not _BETWEEN.fullmatch(text[at : found.start()]):
            raise Unusable(f"text between two turns of {name}: {text[at : found.start()].strip()[:30]!r}")
        role, content, end = found.groups()
        if _START.search(content):
            raise Unusable(f"a turn of {name} begins before the last one has ended")
        if end or content.strip():
            turns.append(message(role, _parts(content) if role.strip() == "assistant" else content))
        at = found.end()
    if name and not _BETWEEN.fullmatch(text[at:]):
        raise Unusable(f"text behind the last turn of {name}: {text[at:].strip()[:30]!r}")
    return turns


def split_file(text: str) -> Iterator[tuple[int, str]]:
    """(line, from 1, text) of every conversation in a file of them."""
    at = 0
    for end in [*(m for m in _NEXT.finditer(text)), None]:
        piece = text[at : end.start() if end else len(text)]
        if piece.strip():
            yield text.count("\n", 0, at + len(piece) - len(piece.lstrip())) + 1, piece.strip()
        at = end.end() if end else at


def _parts(content: str) -> str | list[dict[str, Any]]:
    """An assistant's words, with its tool calls as parts of their own."""
    parts, at = [], 0
    for call in _TOOL.finditer(content):
        parts += [{"type": "text", "text": content[at : call.start()]}] if call.start() > at else []
        parts.append({"type": call[1], "text": call[2]})
        at = call.end()
    if not parts:
        return content
    return [*parts, {"type": "text", "text": content[at:]}] if at < len(content) else parts
