"""The turns of a conversation in one form, whatever they were called where they come from.

The rules, which the docs repeat:

- Roles are `system`, `user`, `assistant` and `tool` (what a tool gave back). Other names for them are translated.
- Neighbours of the same role become one turn, joined by a line break.
- A conversation begins with the user, behind system turns: what an assistant says before anyone spoke is dropped,
  since nothing would ever prompt it. What stands behind the last assistant turn is dropped, since nothing of it would
  be trained on.
- A turn without words makes the whole row unusable, as does a row without an assistant turn.
"""

from __future__ import annotations

from typing import Any

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "customer": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "agent": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "api": "tool",
}
PARTS = ("text", "search", "python", "output")

Content = str | list[dict[str, str]]
Message = dict[str, Any]


class Unusable(ValueError):
    """A row that is no conversation; the message says why."""


class Silent(Unusable):
    """A conversation in which no assistant answers anybody: there is nothing in it to train on."""


def message(role: Any, content: Any) -> Message:
    """One turn, checked. Unusable where the role is unknown or the content is neither text nor parts of text."""
    known = ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        raise Unusable(f"unknown role {_short(role)}")
    found = _content(content)
    if known != "assistant" and not isinstance(found, str):
        raise Unusable(f"a {known} turn with a tool call; only the assistant calls tools")
    return {"role": known, "content": found}


def _content(content: Any) -> Content:
    if isinstance(content, str):
        return _text(content)
    if not isinstance(content, list):
        raise Unusable(f"the content of a turn is {_short(content)}, not text")
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in PARTS or not isinstance(part.get("text"), str):
            raise Unusable(f"a part of a turn is {_short(part)}; there are {', '.join(PARTS)}, each with a text")
        parts.append({"type": kind, "text": _text(part["text"])})
    plain = all(p["type"] == "text" for p in parts)
    return "".join(p["text"] for p in parts) if plain else parts


def _text(text: str) -> str:
    """Checked: text with half a surrogate pair cannot be written as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise Unusable("a turn holds half a surrogate pair, which is no text") from None
    return text


def tidy(turns: list[Message], answered: bool = True) -> list[Message]:
    """The conversation by the rules above. With `answered` false, as in a prompt, it need not end with an answer."""
    kept: list[Message] = []
    for turn in turns:
        if _empty(turn["content"]):
            raise Unusable(f"an empty {turn['role']} turn")
        begun = any(t["role"] == "user" for t in kept)
        if not begun and turn["role"] in ("assistant", "tool"):
            continue
        if kept and kept[-1]["role"] == turn["role"]:
            kept[-1] = {"role": turn["role"], "content": _joined(kept[-1]["content"], turn["content"])}
        else:
            kept.append(turn)
    while answered and kept and kept[-1]["role"] != "assistant":
        kept.pop()
    if not any(t["role"] == "user" for t in kept):
        raise Silent("no assistant turn that answers a user") if answered else Unusable("no user turn")
    return kept


def _empty(content: Content) -> bool:
    return not content.strip() if isinstance(content, str) else not content


def _joined(first: Content, second: Content) -> Content:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n{second}"
    return [*_as_parts(first), {"type": "text", "text": "\n"}, *_as_parts(second)]


def _as_parts(content: Content) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
