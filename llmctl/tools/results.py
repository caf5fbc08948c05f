"""What a tool gave back, made into data: bounded, without control characters, without text that forges a turn.

The engine already encodes results as plain text, so that no spelling of a special token becomes one. This is for
everybody after it: software that renders conversations with string templates (most chat templates do), terminals, and
models that were never told apart from their tokens by anything but spelling.
"""

from __future__ import annotations

import re

# Spelled special tokens: <|im_end|>, DeepSeek's full-width bars, </s>, <start_of_turn>, [INST], <<SYS>>, ...
_TOKENS = re.compile(
    r"<(?=[|\uff5c][^\s<>]{1,60}[|\uff5c]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|think|answer|tool_call|tool_response|tools|start_of_turn|end_of_turn|endoftext)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\])"
    r"|<(?=</?SYS>>)",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def neutral(text: str, limit: int) -> str:
    """`text` with a space inside each spelled special token, no control or direction characters, and at most `limit`.

    It is cut first, so that a page of a gigabyte costs no more than one of `limit` characters.
    """
    spaced = _TOKENS.sub(lambda m: m[0] + " ", _CONTROL.sub("", text[:limit]))
    return spaced[:limit]
