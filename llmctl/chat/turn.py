"""The assistant's turn as it was generated (token ids), turned back into the content of a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmctl.model.chat_format import WRAPS, end_of_turn
from llmctl.model.tokenizer import Tokenizer


def content_of(ids: Sequence[int], tokenizer: Tokenizer, text: str | None = None) -> str | list[dict[str, str]]:
    """A string, or a list of parts where a tool was called: the inverse of `chat_format.render` for one turn.

    Parts are told apart by ids, so text that merely looks like a tool call stays text. `text` replaces the words of a
    turn without calls (one that a stop string has cut).
    """
    opening = {tokenizer.specials.get(wrap[0]): kind for kind, wrap in WRAPS.items() if wrap[0]}
    closing = {tokenizer.specials.get(wrap[1]) for wrap in WRAPS.values() if wrap[1]}
    ends = {end_of_turn(tokenizer), tokenizer.eos_id}
    parts: list[tuple[str, list[int]]] = [("text", [])]
    for i in ids:
        if i in opening:
            parts.append((opening[i], []))
        elif i in closing:
            parts.append(("text", []))
        elif i not in ends:
            parts[-1][1].append(i)
    found: list[dict[str, str]] = [
        {"type": kind, "text": tokenizer.decode(p)} for kind, p in parts if p or kind != "text"
    ]
    if all(p["type"] == "text" for p in found):
        return "".join(p["text"] for p in found) if text is None else text
    return found


def words_of(content: Any) -> str:
    """What the assistant says in a message's content, without tool calls and their results."""
    if isinstance(content, str):
        return content.strip()
    return "".join(p["text"] for p in content if p["type"] == "text").strip()
