"""Conversations, in whatever form they come, as `{"messages": [{"role", "content"}, ...]}`.

The form is recognised row by row from its keys, so nobody has to name it. A row in none of the known forms, or without
anything to learn from, is skipped and named.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.formats import oasst
from llmctl.formats.json_rows import Skipped, read_rows
from llmctl.formats.markup import markup_of, split_markup
from llmctl.formats.transcripts import split_transcript, unwrap_prompt
from llmctl.formats.turns import Message, Silent, Unusable, message, tidy

_KEPT = ("kind", "answer", "check", "id", "group", "form")  # what our own artifacts say about a row
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


@dataclass
class Conversations:
    """`rows` as {"messages": [...]} with what else our own rows carry; `format` names the forms that were found.

    `skipped` says which rows were left out and why; `silent` which of them can be read, but have nothing to train on.
    `placeholders` are names in double braces, such as {{author}}, that stand in the text and were given no value.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    format: str = ""
    skipped: list[Skipped] = field(default_factory=list)
    silent: list[Skipped] = field(default_factory=list)
    placeholders: set[str] = field(default_factory=set)


def read_conversations(
    path: str | Path, split: str = "train", trees: oasst.Paths = "best", values: dict[str, str] | None = None
) -> Conversations:
    """Read a file, or a folder such as a conversations artifact (its `<split>.jsonl`).

    `trees` says which paths of a message tree to take. `values` are put in for {{name}}-like placeholders.
    UserError where nothing in it is a conversation.
    """
    found, forms = Conversations(), Counter[str]()
    for row in oasst.gathered(read_rows(Path(path), split)):
        if isinstance(row, Skipped):
            found.skipped.append(row)
            continue
        try:
            form, many = _conversations_of(row.value, trees)
            made = [_finished(turns, row.value, values or {}, found.placeholders) for turns in many]
        except Unusable as e:
            found.skipped.append(Skipped(row.file, row.line, str(e)))
            found.silent += found.skipped[-1:] if isinstance(e, Silent) else []
            continue
        forms[form] += 1
        found.rows += made
    if not found.rows:
        why = f"{len(found.skipped):,} rows skipped, the first: {found.skipped[0]}" if found.skipped else "it is empty"
        raise UserError(
            f"no conversation in it ({why})", str(path), "docs/data-formats.md shows the forms that are read"
        )
    found.format = " + ".join(form for form, _ in forms.most_common())
    return found


def _conversations_of(row: dict[str, Any], trees: oasst.Paths) -> tuple[str, list[list[Message]]]:
    """(the name of the form, the conversations in the row)."""
    if oasst.is_tree(row):
        return "oasst tree", oasst.paths(row, trees)
    if isinstance(row.get("text"), str) and (markup := markup_of(row["text"])):
        return markup, [split_markup(row["text"])]
    for name, fits, turns in _FORMS:
        if fits(row):
            return name, [turns(row)]
    if row.keys() & {"responses", "response1", "rejected"}:
        raise Unusable("it is a comparison (llmctl rm), not a conversation")
    keys = ", ".join(list(row)[:8]) or "none"
    raise Unusable(f"no known form of conversation; its keys are {keys}")


def _finished(turns: list[Message], row: dict[str, Any], values: dict[str, str], unfilled: set[str]) -> dict[str, Any]:
    messages = tidy([{"role": t["role"], "content": _filled(t["content"], values, unfilled)} for t in turns])
    kept = {key: row[key] for key in _KEPT if isinstance(row.get(key), (str, int, float))}
    return {"messages": messages, **{key: v if isinstance(v, str) else json.dumps(v) for key, v in kept.items()}}


def _filled(content: Any, values: dict[str, str], unfilled: set[str]) -> Any:
    if not isinstance(content, str) or "{{" not in content:
        return content
    unfilled.update(name for name in _PLACEHOLDER.findall(content) if name not in values)
    return _PLACEHOLDER.sub(lambda m: values.get(m[1], m[0]), content)


def _messages(row: dict[str, Any]) -> list[Message]:
    if row.get("label") is False:  # KTO: a single reply that was judged bad
        raise Unusable("its reply is labelled as bad")
    return _with_tools(row, [message(t.get("role"), t.get("content")) for t in _turns(row["messages"])])


def _sharegpt(row: dict[str, Any]) -> list[Message]:
    turns = [
        message(t.get("from", t.get("role")), t.get("value", t.get("content"))) for t in _turns(row["conversations"])
    ]
    system = row.get("system")
    return _with_tools(
        row, [message("system", system), *turns] if isinstance(system, str) and system.strip() else turns
    )


def _speakers(row: dict[str, Any]) -> list[Message]:
    return [message(t.get("speaker"), t.get("text")) for t in _turns(row["turns"])]


def _alternating(row: dict[str, Any]) -> list[Message]:
    return [message(("user", "assistant")[i % 2], text) for i, text in enumerate(row["data"])]


def _instruction(row: dict[str, Any]) -> list[Message]:
    """Alpaca, GPTeacher and Dolly: the instruction, what it is about, and the reply."""
    about = row.get("input") or row.get("context") or ""
    reply = row.get("output", row.get("response"))
    if not isinstance(about, str):
        raise Unusable("the input of an instruction is no text")
    asked = row["instruction"] + (f"\n{about}" if about.strip() else "")
    return [message("user", asked), message("assistant", reply)]


def _prompted(row: dict[str, Any]) -> list[Message]:
    """A prompt (text, wrapped text, or messages) and its completion."""
    reply = row.get("response", row.get("completion"))
    return [
        *prompt_turns(row["prompt"]),
        *(prompt_turns(reply) if isinstance(reply, list) else [message("gpt", reply)]),
    ]


def _history(row: dict[str, Any]) -> list[Message]:
    return [*split_transcript(row["input"]), message("assistant", row["output"])]


def judged_action(row: dict[str, Any]) -> list[Message]:
    """Taskmaster rewards: the turns so far as JSON in a string, and one further action."""
    try:
        turns = [*json.loads(row["context"]), json.loads(row["generation"])]
    except (TypeError, ValueError, RecursionError):
        raise Unusable("its context or generation is not JSON") from None
    return [message(t.get("role"), t.get("text") or _call(t)) for t in _turns(turns)]


def _rewarded(row: dict[str, Any]) -> list[Message]:
    if not row.get("reward"):
        raise Unusable("its reply got no reward")
    return judged_action(row)


def _call(turn: dict[str, Any]) -> str:
    return json.dumps(turn.get("api", turn.get("response")), ensure_ascii=False)


def prompt_turns(prompt: Any) -> list[Message]:
    """The turns of a prompt: messages, a transcript with speakers, an instruction in a frame, or plain text."""
    if isinstance(prompt, list):
        return [message(t.get("role", t.get("from")), t.get("content", t.get("value"))) for t in _turns(prompt)]
    if not isinstance(prompt, str):
        raise Unusable("its prompt is neither text nor messages")
    return split_markup(prompt) or split_transcript(prompt) or [message("user", unwrap_prompt(prompt))]


def _with_tools(row: dict[str, Any], turns: list[Message]) -> list[Message]:
    """A row's list of tools becomes a system turn, since what a model calls it must have been told of."""
    tools = row.get("tools")
    text = tools if isinstance(tools, str) else json.dumps(tools or [], ensure_ascii=False)
    return turns if text.strip() in ("", "[]", "null") else [message("system", f"Tools: {text}"), *turns]


def _turns(value: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise Unusable("its turns are no list of objects")
    return iter(value)


def _strings(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda row: all(isinstance(row.get(key), str) for key in keys)


def _text_list(row: dict[str, Any]) -> bool:
    return isinstance(row.get("data"), list) and all(isinstance(t, str) for t in row["data"])


# (name, how a row is recognised, its turns): the first that fits.
_FORMS: list[tuple[str, Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], list[Message]]]] = [
    ("messages", lambda row: "messages" in row, _messages),
    ("sharegpt", lambda row: "conversations" in row and "chosen" not in row, _sharegpt),
    (
        "sharegpt chosen",
        lambda row: "conversations" in row,
        lambda row: [*_sharegpt(row), *prompt_turns([row["chosen"]])],
    ),
    ("turns", lambda row: "turns" in row, _speakers),
    ("ultrachat", _text_list, _alternating),
    ("judged action", _strings("context", "generation"), _rewarded),
    (
        "hh-rlhf chosen",
        lambda row: _strings("chosen", "rejected")(row) and "instruction" not in row,
        lambda row: split_transcript(row["chosen"]),
    ),
    (
        "dolly",
        lambda row: _strings("instruction", "context", "response")(row) and "output" not in row,
        _instruction,
    ),
    (
        "alpaca",
        lambda row: isinstance(row.get("instruction"), str) and ("output" in row or "response" in row),
        _instruction,
    ),
    (
        "transcript and reply",
        lambda row: _strings("input", "output")(row) and bool(split_transcript(row["input"])),
        _history,
    ),
    ("prompt and reply", lambda row: "prompt" in row and ("response" in row or "completion" in row), _prompted),
    (
        "question and answer",
        _strings("question", "answer"),
        lambda row: [message("user", row["question"]), message("assistant", row["answer"])],
    ),
    (
        "transcript",
        lambda row: _strings("text")(row) and bool(split_transcript(row["text"])),
        lambda row: split_transcript(row["text"]),
    ),
]
