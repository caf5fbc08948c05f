"""Every chat, kept in one SQLite file of the workspace: what was sent and answered, token for token, and by whom.

A reply is written with all that made it (the model's digest, the prompt's ids, the sampling, the seed, the number of
the sample), so that it can be made again. Judgements are written here first; the artifacts that training reads are
remade from them (`feedback.py`). Every write is a transaction of its own: a kill loses nothing that was shown.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmctl.chat.speaker import Speaker
from llmctl.errors import UserError
from llmctl.generate.sampling import Sampling
from llmctl.workspace import Workspace
from llmctl.workspace.build import now

NAME = "chats.sqlite"
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS chats (id INTEGER PRIMARY KEY, began TEXT NOT NULL, source TEXT NOT NULL,
    model TEXT NOT NULL, digest TEXT NOT NULL, dialogue TEXT NOT NULL DEFAULT '[]');
CREATE TABLE IF NOT EXISTS turns (id INTEGER PRIMARY KEY, chat INTEGER NOT NULL REFERENCES chats, at TEXT NOT NULL,
    model TEXT NOT NULL, digest TEXT NOT NULL, precision TEXT NOT NULL, prompt TEXT NOT NULL, sampling TEXT NOT NULL,
    sample INTEGER NOT NULL, tools INTEGER NOT NULL, ids TEXT NOT NULL, content TEXT NOT NULL, finish TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS turns_of_chat ON turns (chat);
CREATE TABLE IF NOT EXISTS feedback (id INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
    key TEXT NOT NULL, row TEXT NOT NULL, UNIQUE (kind, name, key));
"""


@dataclass
class Turn:
    """One reply and what made it. `prompt` and `ids` are token ids, `content` is a message's content."""

    prompt: list[int]
    sampling: Sampling
    sample: int
    ids: list[int]
    content: Any
    finish: str
    tools: bool = False
    model: str = ""
    digest: str = ""
    precision: str = ""


class Log:
    """The file. Threads may share it."""

    def __init__(self, workspace: Workspace) -> None:
        self.path = workspace.root / NAME
        self._lock = threading.Lock()
        try:
            workspace.root.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={_VERSION}")
        except (OSError, sqlite3.Error) as e:
            raise UserError(
                f"cannot keep the log: {e}",
                str(self.path),
                "move it away if it is damaged, or chat with -s log=false",
            ) from e

    def begin(self, source: str, speaker: Speaker) -> int:
        """A new chat's id. `source`: repl, once or serve."""
        sql = "INSERT INTO chats (began, source, model, digest) VALUES (?, ?, ?, ?)"
        return self._write(sql, (now(), source, speaker.name, speaker.digest))

    def add(self, chat: int, speaker: Speaker, turn: Turn, dialogue: Sequence[Any]) -> int:
        """A reply, and how the dialogue stands after it. Returns the turn's id."""
        values = (
            chat, now(), speaker.name, speaker.digest, str(speaker.engine.dtype), json.dumps(turn.prompt),
            json.dumps(asdict(turn.sampling)), turn.sample, int(turn.tools), json.dumps(turn.ids),
            json.dumps(turn.content, ensure_ascii=False), turn.finish,
        )  # fmt: skip
        columns = "chat, at, model, digest, precision, prompt, sampling, sample, tools, ids, content, finish"
        made = self._write(f"INSERT INTO turns ({columns}) VALUES ({', '.join('?' * len(values))})", values)
        self.stands(chat, dialogue)
        return made

    def stands(self, chat: int, dialogue: Sequence[Any]) -> None:
        """What the dialogue is now, after /undo, /bad and the like."""
        self._write(
            "UPDATE chats SET dialogue = ? WHERE id = ?", (json.dumps(list(dialogue), ensure_ascii=False), chat)
        )

    def chats(self, most: int = 20) -> list[dict[str, Any]]:
        """The latest chats, the newest first: {"id", "began", "source", "model", "turns", "dialogue"}."""
        sql = """SELECT c.id, c.began, c.source, c.model, COUNT(t.id), c.dialogue FROM chats c
            LEFT JOIN turns t ON t.chat = c.id WHERE c.dialogue != '[]' OR t.id NOTNULL
            GROUP BY c.id ORDER BY c.id DESC LIMIT ?"""
        names = ("id", "began", "source", "model", "turns", "dialogue")
        found = [dict(zip(names, row, strict=True)) for row in self._read(sql, (most,))]
        return [{**chat, "dialogue": json.loads(chat["dialogue"])} for chat in found]

    def dialogue(self, chat: int) -> list[dict[str, Any]]:
        """The messages of a chat as they stand. UserError where there is none of that id."""
        found = self._read("SELECT dialogue FROM chats WHERE id = ?", (chat,))
        if not found:
            raise UserError(f"no chat {chat} in the log", str(self.path), "/history shows them")
        return list(json.loads(found[0][0]))

    def turns(self, chat: int) -> list[Turn]:
        """The replies of a chat in order. UserError where there are none."""
        columns = "prompt, sampling, sample, ids, content, finish, tools, model, digest, precision"
        found = self._read(f"SELECT {columns} FROM turns WHERE chat = ? ORDER BY id", (chat,))
        if not found:
            raise UserError(f"no chat {chat} in the log", str(self.path), "/history in a chat shows them")
        return [
            Turn(json.loads(p), _sampling(json.loads(s)), n, json.loads(i), json.loads(c), f, bool(t), m, d, x)
            for p, s, n, i, c, f, t, m, d, x in found
        ]

    def judge(self, kind: str, name: str, key: str, row: dict[str, Any]) -> None:
        """Keep `row` for the artifact `kind/name`; a row with the same key is replaced."""
        sql = """INSERT INTO feedback (at, kind, name, key, row) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (kind, name, key) DO UPDATE SET row = excluded.row, at = excluded.at"""
        self._write(sql, (now(), kind, name, key, json.dumps(row, ensure_ascii=False)))

    def judged(self, kind: str, name: str) -> dict[str, dict[str, Any]]:
        """The rows kept for `kind/name`, by key, the oldest first."""
        sql = "SELECT key, row FROM feedback WHERE kind = ? AND name = ? ORDER BY id"
        return {key: json.loads(row) for key, row in self._read(sql, (kind, name))}

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    def _write(self, sql: str, values: tuple[Any, ...]) -> int:
        with self._lock:
            return int(self._db.execute(sql, values).lastrowid or 0)

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()


def model_of(workspace: Workspace, chat: int) -> str:
    """The name of the model that gave the first reply of a chat."""
    path: Path = workspace.root / NAME
    if not path.is_file():
        raise UserError("there is no log of chats", str(path))
    log = Log(workspace)
    try:
        return log.turns(chat)[0].model
    finally:
        log.close()


def _sampling(found: dict[str, Any]) -> Sampling:
    stops = found["stop_ids"]
    return Sampling(
        **{
            **found,
            "stop_ids": None if stops is None else tuple(stops),
            "stop_strings": tuple(found["stop_strings"]),
        }
    )
