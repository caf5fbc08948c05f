"""The forms in which a reply states its answer, and worked solutions written in each of them.

Four forms are in use in the field: a sentence ("The answer is 85."), GSM8K's `#### 85`, DeepSeek-R1's
`<think>...</think><answer>85</answer>` (arXiv 2501.12948, table 1), and MATH's `\\boxed{85}`. A reply is read in any of
them; a problem's `form` says which one is taught and rewarded.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

from llmctl.verify.item import Item

Form = Literal["answer", "hashes", "think", "boxed"]

_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_FINALS = (
    re.compile(r"[Tt]he answer is:?[ \t]*([^\n]{1,200})"),
    re.compile(r"####[ \t]*([^\n]{1,200})"),
    re.compile(r"<answer>([^<]{1,200})</answer>"),
)
_BRACES = re.compile(r"\\boxed[ ]?\{|\\[{}]|[{}]")
_LAST_SENTENCE = "The answer is "


def in_form(item: Item, form: str) -> Item:
    """`item` with its worked solution, which ends in "The answer is X.", written in another form."""
    messages = item.messages
    steps, found, said = str(messages[-1]["content"]).rpartition(_LAST_SENTENCE)
    assert found and said.endswith("."), f"a {item.kind} solution has no last sentence to rewrite"
    reply = written(steps.strip(), said[:-1], form)
    return replace(item, messages=[*messages[:-1], {**messages[-1], "content": reply}], form=form)


def written(steps: str, answer: str, form: str) -> str:
    """A worked solution: the steps, then the answer, in that order ("models need tokens to think")."""
    if form == "think":
        return f"<think>{steps}</think><answer>{answer}</answer>"
    last = {"answer": f"{_LAST_SENTENCE}{answer}.", "hashes": f"#### {answer}", "boxed": f"\\boxed{{{answer}}}"}[form]
    return f"{steps}\n{last}" if steps else last


def has_think_form(reply: str) -> bool:
    """The format rule of DeepSeek-R1: both pairs of tags once, in order, neither empty, and nothing outside them."""
    text = reply.strip()
    if not text.startswith(_TAGS[0]) or not text.endswith(_TAGS[3]) or any(text.count(tag) != 1 for tag in _TAGS):
        return False
    thought, _, rest = text[len(_TAGS[0]) :].partition(_TAGS[1])
    between, _, answer = rest.partition(_TAGS[2])
    return bool(thought.strip()) and not between.strip() and bool(answer[: -len(_TAGS[3])].strip())


def stated(text: str) -> tuple[str | None, bool]:
    """(what the reply states as its answer, whether it does so exactly once and then ends). The last one counts."""
    found = [(m.start(), m.end(), m[1]) for form in _FINALS for m in form.finditer(text)]
    # "The answer is \\boxed{5}." says it once: a box inside another statement is what that one says.
    boxes = boxed(text)
    found += [box for box in boxes if not any(start <= box[0] < end for start, end, _ in found)]
    if not found:
        return None, False
    start, end, said = max(found)
    inside = [box for box in boxes if start < box[0] < end]
    return (inside[-1][2] if inside else said).strip(), len(found) == 1 and end == len(text)


def boxed(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of each outermost complete `\\boxed{...}`, in one pass over the text."""
    found: list[tuple[int, int, str]] = []
    opened: list[tuple[int, int] | None] = []
    for match in _BRACES.finditer(text):
        said = match[0]
        if said.startswith("\\boxed"):
            opened.append((match.start(), match.end()))
        elif said == "{":
            opened.append(None)
        elif said == "}" and opened and (box := opened.pop()):
            while found and found[-1][0] > box[0]:
                found.pop()
            found.append((box[0], match.end(), text[box[1] : match.start()]))
    return found
