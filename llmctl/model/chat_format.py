"""The one renderer: every stage that shows a conversation to a model renders it here.

Our own format: one message is `<|im_start|>ROLE<|im_sep|>CONTENT<|im_end|>`, with nothing between messages. Inside an
assistant's turn a tool call is `<|python_start|>code<|python_end|><|output_start|>result<|output_end|>` (or `search`).
A model from elsewhere that has learned to chat keeps its format, if that is ChatML or Llama 3's: which one it is, its
tokenizer's special tokens say.

Training, roll-outs and chat use the same ids, token for token, and a prompt is always a prefix of the conversation it
grows into. A message is text, never markup: what merely looks like a special token in it is encoded as plain text.
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


@dataclass(frozen=True)
class ChatFormat:
    """How a turn is written down: START role CLOSE lead content END after.

    START, CLOSE and END are special tokens, the others text. Without a CLOSE (""), role and lead are one text.
    """

    name: str
    start: str
    close: str
    lead: str
    end: str
    after: str = ""  # between two turns; nobody learns it
    first: str = ""  # before the first turn
    trims: bool = False  # white space around a content is left out

    @property
    def tokens(self) -> tuple[str, ...]:
        """The special tokens that a tokenizer must have."""
        return tuple(t for t in (self.first, self.start, self.close, self.end) if t)

    @property
    def template(self) -> str:
        """The same format for everyone else's software, in Jinja.

        It gives the same ids as `render` on every conversation without look-alikes of special tokens in its text, which
        it cannot tell apart, as templates work on strings; with ChatML also without answers that begin with a line
        break, which it joins to the header's.
        """
        first = f"{{%- if loop.first -%}}\n{{{{- '{self.first}' -}}}}\n{{%- endif -%}}\n" if self.first else ""
        opened = f"'{self.start}' + {{}} + '{self.close}{_escaped(self.lead)}'"
        return _TEMPLATE.format(
            first=first,
            opened=opened.format("message['role']"),
            content="message['content']" + (" | trim" if self.trims else ""),
            end=self.end + _escaped(self.after),
            prompt=f"'{self.start}{ASSISTANT}{self.close}{_escaped(self.lead)}'",
        )


_TEMPLATE = """\
{{%- for message in messages -%}}
{first}{{{{- {opened} -}}}}
{{%- if message['content'] is string -%}}
{{{{- {content} -}}}}
{{%- else -%}}
{{%- for part in message['content'] -%}}
{{%- if part['type'] == 'text' -%}}
{{{{- part['text'] -}}}}
{{%- else -%}}
{{{{- '<|' + part['type'] + '_start|>' + part['text'] + '<|' + part['type'] + '_end|>' -}}}}
{{%- endif -%}}
{{%- endfor -%}}
{{%- endif -%}}
{{{{- '{end}' -}}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}
{{{{- {prompt} -}}}}
{{%- endif -%}}
"""


def _escaped(text: str) -> str:
    return text.replace("\n", "\\n")


OURS = ChatFormat("llmctl", IM_START, IM_SEP, "", IM_END)
CHATML = ChatFormat("ChatML", IM_START, "", "\n", IM_END, after="\n")
LLAMA3 = ChatFormat(
    "Llama 3", "<|start_header_id|>", "<|end_header_id|>", "\n\n", "<|eot_id|>", first="<|begin_of_text|>", trims=True
)
FORMATS = (OURS, LLAMA3, CHATML)  # ours before ChatML, which has two of its three tokens
CHAT_TEMPLATE = OURS.template


def format_of(tokenizer: Tokenizer) -> ChatFormat | None:
    """The format whose tokens the tokenizer has; None where it has those of none."""
    return next((f for f in FORMATS if all(t in tokenizer.specials for t in f.tokens)), None)


def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """The id that ends an assistant's turn; None where the tokenizer knows no chat format."""
    found = format_of(tokenizer)
    return tokenizer.specials[found.end] if found else None


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
    """A whole conversation. Trained on: what the assistant writes, its tool calls and the token that ends its turn.

    Not trained on: headers, every other role, and what tools answer. UserError for a malformed message, or a tokenizer
    without the chat tokens.
    """
    form, found = _format(tokenizer), Rendered()
    if form.first:
        found.add([_special(form.first, tokenizer)], False)
    for i, message in enumerate(messages):
        mine = message.get("role") == ASSISTANT
        ids, lead = _header(message.get("role"), tokenizer, form, i)
        found.add(ids, False)
        if mine:  # a prompt ends here, so no token may reach from the header into the answer
            found.add(tokenizer.encode(lead), False)
            lead = ""
        for kind, text in _turn(message.get("content"), i, lead, form):
            start, end = WRAPS[kind]
            trained = mine and kind != "output"
            if start:
                found.add([_special(start, tokenizer)], trained)
            found.add(tokenizer.encode(text), trained)
            if end:
                found.add([_special(end, tokenizer)], trained)
        found.add([_special(form.end, tokenizer)], mine)
        found.add(tokenizer.encode(form.after), False)
    return found


def render_prompt(messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> list[int]:
    """The conversation so far and the header of the assistant's next turn: a prefix of the rendered continuation."""
    ids, lead = _header(ASSISTANT, tokenizer, _format(tokenizer), len(messages))
    return render(messages, tokenizer).ids + ids + tokenizer.encode(lead)


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


def _turn(content: Any, index: int, lead: str, form: ChatFormat) -> Iterator[tuple[str, str]]:
    """The parts of a message behind `lead`."""
    if isinstance(content, str):
        yield "text", lead + (content.strip() if form.trims else content)
    elif lead and isinstance(content, Sequence):
        yield from parts([{"type": "text", "text": lead}, *content], index)
    else:
        yield from parts(content, index)


def _format(tokenizer: Tokenizer) -> ChatFormat:
    return format_of(tokenizer) or OURS  # whose first token is then named as missing


def _header(role: Any, tokenizer: Tokenizer, form: ChatFormat, index: int) -> tuple[list[int], str]:
    """The ids that a turn begins with, and the text between them and the content."""
    if not isinstance(role, str) or not role:
        raise UserError(f"message {index + 1} has no role", fix="roles: system, user, assistant")
    start = _special(form.start, tokenizer)
    if not form.close:
        return [start], role + form.lead
    return [start, *tokenizer.encode(role), _special(form.close, tokenizer)], form.lead


def _special(token: str, tokenizer: Tokenizer) -> int:
    found = tokenizer.specials.get(token)
    if found is None:
        raise UserError(
            f"the tokenizer has no token {token!r}, so it cannot hold a conversation",
            fix="tokenize with a tokenizer that llmctl made, or one that knows the chat tokens",
        )
    return found
