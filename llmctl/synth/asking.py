"""Asking a writer many things: every reply is kept as it comes, so that a kill costs nothing that was paid for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.endpoint import ChatSampling, Conversation, EndpointSettings, Reply, Writer
from llmctl.errors import UserError


class Journal:
    """Replies by key, one JSON line each, appended as they come. A line cut short by a kill is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, dict[str, Any]] = {}
        whole = 0
        if path.exists():
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            for line in data[:whole].split(b"\n"):
                if line:
                    row = json.loads(line)
                    self.found[row.pop("key")] = row
        self._file = open(path, "ab")  # noqa: SIM115 - held as long as the journal
        self._file.truncate(whole)

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Keep one."""
        self.found[key] = row
        self._file.write(json.dumps({"key": key, **row}, ensure_ascii=False).encode() + b"\n")
        self._file.flush()


@dataclass
class Spent:
    """What was asked and what it took, over all runs of this artifact."""

    asked: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


class Asking:
    """One writer in one `role`, with its journal in `folder`. `spent` counts what came, whenever it came."""

    def __init__(self, role: str, writer: Writer, folder: Path, endpoint: EndpointSettings, console: Console) -> None:
        self.writer, self.endpoint, self.console = writer, endpoint, console
        # Where a model is served may change between two runs; what it is called may not.
        self._who = {k: v for k, v in writer.who().items() if k != "endpoint"}
        self._journal = Journal(folder / f"{role}.jsonl")
        self.spent = Spent()

    def ask(
        self, title: str, conversations: Sequence[Conversation], sampling: ChatSampling, seeds: Sequence[int]
    ) -> list[Reply]:
        """The reply to each conversation, in order. Nothing that the journal holds is asked again."""
        keys = [_key([self._who, c, asdict(sampling), s]) for c, s in zip(conversations, seeds, strict=True)]
        todo = self._missing(keys)
        fresh = set(todo)
        replies = {k: Reply(**self._journal.found[k]) for i, k in enumerate(keys) if i not in fresh}
        with self.console.progress(title, len(keys), "replies") as bar:
            bar.start_at(len(keys) - len(todo))
            for reply in replies.values():
                self._count(reply)
            asked = self.writer.answers([conversations[i] for i in todo], sampling, [seeds[i] for i in todo])
            for at, reply in asked:
                key = keys[todo[at]]
                if reply.finish != "error":
                    self._journal.add(key, asdict(reply))
                replies[key] = reply
                self._count(reply)
                bar.advance(1)
        return [replies[k] for k in keys]

    def report(self) -> dict[str, Any]:
        """Who was asked and what it took, for the manifest."""
        return {**self.writer.who(), **asdict(self.spent), **({"cost": round(self._cost(), 4)} if self._cost() else {})}

    def _missing(self, keys: Sequence[str]) -> list[int]:
        """What is to be asked: in whole batches, since replies of a local model depend on what shares their batch."""
        size = self.writer.batch
        todo: list[int] = []
        for at in range(0, len(keys), size):
            batch = range(at, min(at + size, len(keys)))
            if any(keys[i] not in self._journal.found for i in batch):
                todo += batch
        return todo

    def _count(self, reply: Reply) -> None:
        self.spent.asked += 1
        self.spent.tokens_in += reply.tokens_in
        self.spent.tokens_out += reply.tokens_out
        cost, most = self._cost(), self.endpoint.max_cost
        if most and cost >= most:
            raise UserError(
                f"{cost:.2f} spent, which is the limit",
                "endpoint.max_cost",
                "all replies are kept: raise it, or ask for fewer, and run the same command again",
            )

    def _cost(self) -> float:
        """What the endpoint charges; a model of the workspace costs nothing."""
        charged = "endpoint" in self.writer.who()
        return self.endpoint.cost(self.spent.tokens_in, self.spent.tokens_out) if charged else 0.0


def seed_of(*what: object) -> int:
    """A seed that depends on nothing but `what`."""
    return int(_key(what)[:8], 16) & 0x7FFFFFFF


def _key(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True, sort_keys=True, default=list).encode()).hexdigest()[:32]
