"""The one chat format: every stage that shows a conversation to a model renders it here.

One message is `<|im_start|>ROLE<|im_sep|>CONTENT<|im_end|>`, with nothing between messages. Inside an assistant's turn
a tool call is `<|python_start|>code<|python_end|><|output_start|>result<|output_end|>` (or `search`). Training,
roll-outs and chat use the same ids, token for token, and a prompt is always a prefix of the conversation it grows into.

A message is text, never markup: what merely looks like a special token in it is encoded as plain text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError

if TYPE_CHECKING:
    from llmctl.model.tokenizer import Tokenizer

IM_START, IM_SEP, IM_END = "<|im_start|>", "<|im_sep|>", "<|im_end|>"
ASSISTANT = "assistant"
# How each part of an assistant's turn is wrapped. What the tool answers ("output") is not the model's own text.
WRAPS = {
    "text": ("", ""),
    "search": ("<|search_start|>", "<|search_end|>"),
    "python": ("<|python_start|>", "<|python_end|>"),
    "output": ("<|output_start|>", "<|output_end|>"),
}
CHAT_TOKENS = (IM_START, IM_SEP, IM_END, *(t for wrap in list(WRAPS.values())[1:] for t in wrap))

# The same format for everyone else's software. It gives the same ids as `render` on every conversation without
# look-alikes of special tokens in its text; those it cannot tell apart, as templates work on strings.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '<|im_sep|>' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- else -%}
{{- '<|' + part['type'] + '_start|>' + part['text'] + '<|' + part['type'] + '_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant<|im_sep|>' -}}
{%- endif -%}
"""


@dataclass
class Rendered:
    """Token ids, and for each whether the model is trained to produce it."""

    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)

    def add(self, ids: Sequence[int], trained: bool) -> None:
        """Append `ids`."""
        self.ids += ids
        self.mask += [trained] * len(ids)

    def __len__(self) -> int:
        return len(self.ids)


def render(messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> Rendered:
    """A whole conversation. Trained on: what the assistant writes, its tool calls and its `<|im_end|>`.

    Not trained on: headers, every other role, and what tools answer. UserError for a malformed message, or a tokenizer
    without the chat tokens.
    """
    found = Rendered()
    for i, message in enumerate(messages):
        mine = message.get("role") == ASSISTANT
        found.add(_header(message.get("role"), tokenizer, i), False)
        for kind, text in parts(message.get("content"), i):
            start, end = WRAPS[kind]
            trained = mine and kind != "output"
            if start:
                found.add([_special(start, tokenizer)], trained)
            found.add(tokenizer.encode(text), trained)
            if end:
                found.add([_special(end, tokenizer)], trained)
        found.add([_special(IM_END, tokenizer)], mine)
    return found


def render_prompt(messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> list[int]:
    """The conversation so far and the header of the assistant's next turn: a prefix of the rendered continuation."""
    return render(messages, tokenizer).ids + _header(ASSISTANT, tokenizer, len(messages))


def parts(content: Any, index: int = 0) -> Iterator[tuple[str, str]]:
    """The (type, text) parts of a message's content. Neighbouring texts are joined: a cut must change no id."""
    if isinstance(content, str):
        yield "text", content
        return
    if not isinstance(content, Sequence):
        raise UserError(f"the content of message {index + 1} is neither a string nor a list of parts")
    text = ""
    for part in content:
        kind, inner = (part.get("type"), part.get("text")) if isinstance(part, Mapping) else (None, None)
        if kind not in WRAPS or not isinstance(inner, str):
            raise UserError(
                f"message {index + 1} has a part of type {kind!r}", fix=f"parts: {', '.join(WRAPS)}, each with a 'text'"
            )
        if kind == "text":
            text += inner
            continue
        if text:
            yield "text", text
        text = ""
        yield kind, inner
    if text:
        yield "text", text


def _header(role: Any, tokenizer: Tokenizer, index: int) -> list[int]:
    if not isinstance(role, str) or not role:
        raise UserError(f"message {index + 1} has no role", fix="roles: system, user, assistant")
    return [_special(IM_START, tokenizer), *tokenizer.encode(role), _special(IM_SEP, tokenizer)]


def _special(token: str, tokenizer: Tokenizer) -> int:
    found = tokenizer.specials.get(token)
    if found is None:
        raise UserError(
            f"the tokenizer has no token {token!r}, so it cannot hold a conversation",
            fix="tokenize with a tokenizer that llmctl made, or one that knows the chat tokens",
        )
    return found
