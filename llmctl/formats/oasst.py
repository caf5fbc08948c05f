"""OpenAssistant message trees: a prompt with ranked replies, each with prompts of its own, and so on.

They come as trees, or as messages that name their parents (the files of the hub). Walked without recursion, so that a
tree of any depth can be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from llmctl.formats.json_rows import Row, Skipped
from llmctl.formats.turns import Message, Unusable, message

Paths = Literal["best", "all"]


def is_tree(row: dict[str, Any]) -> bool:
    """True for a row of the export format."""
    return isinstance(row.get("prompt"), dict) and isinstance(row["prompt"].get("replies"), list)


def gathered(rows: Iterable[Row | Skipped]) -> Iterator[Row | Skipped]:
    """The rows; messages that name their parents as the trees that they make, at the end, each at its root's line.

    A message whose parent is not there is skipped with all its replies.
    """
    nodes: dict[str, tuple[Row, dict[str, Any]]] = {}
    for row in rows:
        if isinstance(row, Skipped) or not _is_message(row.value):
            yield row
        else:
            nodes[row.value["message_id"]] = row, {**row.value, "replies": []}
    for row, node in nodes.values():
        parent = node["parent_id"]
        if parent in nodes:
            nodes[parent][1]["replies"].append(node)
        elif parent:
            yield Skipped(row.file, row.line, f"a reply to message {parent!r}, which is not there")
    yield from (Row(row.file, row.line, {"prompt": node}) for row, node in nodes.values() if not node["parent_id"])


def _is_message(row: dict[str, Any]) -> bool:
    parent = row.get("parent_id")
    return all(isinstance(row.get(k), str) for k in ("message_id", "text", "role")) and (
        isinstance(parent, str) or (parent is None and "parent_id" in row)
    )


def paths(row: dict[str, Any], which: Paths = "best") -> list[list[Message]]:
    """The conversations of a tree: the path of best-ranked replies, or every path from the root to a leaf."""
    found: list[list[Message]] = []
    for node, turns in _walk(row["prompt"], best=which == "best"):
        if not _replies(node):
            found.append(turns)
    found = [turns for turns in found if any(t["role"] == "assistant" for t in turns)]
    if not found:
        raise Unusable("a tree without an answer")
    return found


def rankings(row: dict[str, Any]) -> Iterator[tuple[list[Message], list[str], list[int]]]:
    """(the conversation so far, the replies, their ranks from 0) wherever two or more replies are ranked."""
    for node, turns in _walk(row["prompt"], best=False):
        ranked = [r for r in _replies(node) if r.get("role") == "assistant" and isinstance(r.get("rank"), int)]
        if len(ranked) > 1 and turns[-1]["role"] == "user":
            replies = [message("assistant", r.get("text"))["content"] for r in ranked]
            yield turns, replies, [r["rank"] for r in ranked]


def _walk(root: dict[str, Any], best: bool) -> Iterator[tuple[dict[str, Any], list[Message]]]:
    """Every node with the turns from the root to it; with `best`, only the best reply of each node."""
    open_nodes = [(root, [message(root.get("role"), root.get("text"))])]
    while open_nodes:
        node, turns = open_nodes.pop()
        yield node, turns
        replies = _replies(node)
        chosen = sorted(replies, key=_rank)[:1] if best else replies
        open_nodes += [(r, [*turns, message(r.get("role"), r.get("text"))]) for r in reversed(chosen)]


def _replies(node: dict[str, Any]) -> list[dict[str, Any]]:
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(r, dict) for r in replies):
        raise Unusable("the replies of a message are no list of messages")
    return [r for r in replies if not r.get("deleted")]


def _rank(node: dict[str, Any]) -> float:
    """Unranked replies come after the ranked ones, in their order."""
    rank = node.get("rank")
    return float(rank) if isinstance(rank, int) else float("inf")
