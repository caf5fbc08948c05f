"""Conversations that were written down as one text, and instructions in the frame they were given to a model in."""

from __future__ import annotations

import re

from llmctl.formats.turns import Message, message

# "\n\nHuman: ...\n\nAssistant: ..." (hh-rlhf), "### Human: ... ### Assistant: ..." (guanaco)
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]*|(?:^|\s)### ?(Human|Assistant):[ \t]*")
_FRAME = re.compile(
    r"### Instruction:\n(?P<asked>.*?)(?:\n\n### Input:\n(?P<about>.*?))?\n*### Response:\s*\Z", re.DOTALL
)


def split_transcript(text: str) -> list[Message]:
    """The turns of a text that begins with a speaker; none for other text. Empty turns at its end are left out."""
    marks = list(_SPEAKER.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        return []
    ends = [m.start() for m in marks[1:]] + [len(text)]
    turns = [message(m[1] or m[2], text[m.end() : end].strip()) for m, end in zip(marks, ends, strict=True)]
    while turns and not turns[-1]["content"]:
        turns.pop()
    return turns


def unwrap_prompt(prompt: str) -> str:
    """The instruction in "Below is ... ### Instruction: ... ### Response:", with its input; other text as it is."""
    found = _FRAME.search(prompt)
    if not found:
        return prompt
    asked, _, about = found[1].partition("### Input:\n")
    return "\n".join(part.strip() for part in (asked, about) if part.strip())
