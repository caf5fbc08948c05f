"""What people said of answers, as the artifacts that training reads.

An artifact never changes, and judgements come one by one. So a judgement goes into the log at once, and the artifact
is made anew from all the log holds for it: whole each time, with a digest of its own, so that a step that was trained
on the shorter one is known to be out of date.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from llmctl.chat.config import ChatConfig
from llmctl.chat.log import Log
from llmctl.chat.save import write_rows
from llmctl.errors import UserError
from llmctl.formats.turns import Unusable, message, tidy
from llmctl.workspace import Artifact, Workspace


def key_of(value: Any) -> str:
    """A short name for a JSON value: equal for equal ones."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def conversation(messages: list[dict[str, Any]], kind: str = "chat") -> dict[str, Any]:
    """The row of a good conversation. UserError where nothing in it could be trained on."""
    try:
        return {"messages": tidy([message(m.get("role"), m.get("content")) for m in messages]), "kind": kind}
    except (Unusable, AttributeError) as e:
        raise UserError(f"that is no conversation to keep: {e}") from None


def comparison(prompt: list[dict[str, Any]], responses: list[str], ranking: list[int]) -> dict[str, Any]:
    """The row of replies to `prompt` with their ranks (0 is best). UserError where it says nothing."""
    try:
        asked = tidy([message(m.get("role"), m.get("content")) for m in prompt], answered=False)
    except (Unusable, AttributeError) as e:
        raise UserError(f"that is no prompt: {e}") from None
    if len(responses) != len(ranking) or len({r.strip() for r in responses if r.strip()}) < 2:
        raise UserError("there are no two different answers to compare")
    return {"prompt": asked, "responses": responses, "ranking": ranking}


def keep(log: Log, kind: str, name: str, row: dict[str, Any], key: str = "") -> None:
    """Note a row for the artifact `kind/name`. One about the same (by `key`; else the same row) is replaced."""
    log.judge(kind, name, key or key_of(row), row)


def publish(workspace: Workspace, config: ChatConfig, log: Log, kind: str, name: str) -> Artifact | None:
    """Make `kind/name` from the log, unless that is what it is. None where the log has nothing for it.

    What a chat wrote there before it had this log is taken into it. UserError where another stage made that name.
    """
    there = next((a for a in workspace.artifacts(kind) if a.name == name), None)
    if there is not None:
        if there.manifest.get("stage") != config.stage:
            raise UserError(f"{kind} {name!r} was made by {there.manifest.get('stage')}", fix="choose another name")
        known = [json.dumps(r, sort_keys=True) for r in log.judged(kind, name).values()]
        if there.figures.get("from") != "log":
            for line in there.file("train.jsonl").read_text(encoding="utf-8").splitlines():
                if json.dumps(json.loads(line), sort_keys=True) not in known:
                    keep(log, kind, name, json.loads(line))
    rows = list(log.judged(kind, name).values())
    if not rows or (there is not None and there.figures.get("rows") == key_of(rows)):
        return there
    with workspace.build(config.model_copy(update={"out": name, "prompts": []}), kind=kind) as build:
        write_rows(build.path / "train.jsonl", rows)
        build.figures = {kind: len(rows), "rows": key_of(rows), "from": "log", "out": f"{len(rows)} {kind}"}
    return build.done()
