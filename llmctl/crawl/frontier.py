"""Every address a crawl knows, and how far it is with each: a SQLite file that survives a kill.

A page is marked done in the same transaction that moves `position`, the place in the archive up to which everything is
on disk. What the archive holds behind that place when a killed crawl goes on was written but not yet marked; it is
marked then (see `crawler.py`), so nothing is fetched twice and nothing is lost.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.crawl.robots import Robots
from llmctl.errors import UserError

QUEUED, TAKEN, PAGE = "queued", "taken", "page"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS urls (
    id INTEGER PRIMARY KEY, url TEXT UNIQUE NOT NULL, host TEXT NOT NULL, kind TEXT NOT NULL, depth INTEGER NOT NULL,
    hops INTEGER NOT NULL, state TEXT NOT NULL, why TEXT NOT NULL DEFAULT '', status INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    target TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS waiting ON urls (host, depth, id) WHERE state = 'queued';
CREATE INDEX IF NOT EXISTS outcomes ON urls (state, why);
CREATE TABLE IF NOT EXISTS robots (
    origin TEXT PRIMARY KEY, text TEXT NOT NULL, why TEXT NOT NULL, fetched REAL NOT NULL);
CREATE TABLE IF NOT EXISTS queries (path TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS digests (digest TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@contextmanager
def room_needed(path: Path) -> Iterator[None]:
    """A disk that is full, or gone, is a UserError about `path`; a query that is wrong stays a defect."""
    try:
        yield
    except sqlite3.OperationalError as e:
        if not any(word in str(e) for word in ("full", "disk", "unable to open", "readonly")):
            raise
        raise UserError(f"cannot note the progress: {e}", str(path), "make room, then run it again") from e


@dataclass(frozen=True)
class Job:
    """One address to fetch. `depth` counts links from a source, `hops` redirects in a row, `tries` failed attempts."""

    id: int
    url: str
    host: str
    kind: str
    depth: int
    hops: int
    tries: int


class Frontier:
    """The addresses of one crawl. Nothing is on disk before `commit`."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # a commit is on disk when it returns
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")
        self._db.execute("UPDATE urls SET state = ? WHERE state = ?", (QUEUED, TAKEN))

    def commit(self) -> None:
        """Put everything since the last call on disk, whole."""
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Keep what is committed, forget the rest."""
        self._db.close()

    def add(
        self, url: str, host: str, kind: str = "page", depth: int = 0, hops: int = 0, state: str = QUEUED, why: str = ""
    ) -> bool:
        """Queue an address, or note it in another state; False where it is known already."""
        row = (url, host, kind, depth, hops, state, why)
        sql = "INSERT OR IGNORE INTO urls (url, host, kind, depth, hops, state, why) VALUES (?, ?, ?, ?, ?, ?, ?)"
        return self._db.execute(sql, row).rowcount > 0

    def take(self, host: str) -> Job | None:
        """The next address of `host` that is due, breadth first; it is taken until it is finished or put back."""
        row = self._db.execute(
            "SELECT id, url, host, kind, depth, hops, tries FROM urls WHERE state = 'queued' AND host = ? AND due <= ? "
            "ORDER BY depth, id LIMIT 1",
            (host, time.time()),
        ).fetchone()
        if row is None:
            return None
        self._db.execute("UPDATE urls SET state = ? WHERE id = ?", (TAKEN, row[0]))
        return Job(*row)

    def put_back(self, job: Job, due: float = 0.0, failed: bool = False) -> None:
        """Queue a taken address again, not before `due` (seconds since the epoch)."""
        sql = "UPDATE urls SET state = ?, due = ?, tries = tries + ? WHERE id = ?"
        self._db.execute(sql, (QUEUED, due, int(failed), job.id))

    def finish(self, id: int, state: str, why: str = "", status: int = 0, target: str = "", size: int = 0) -> None:
        """Say how it ended: `page` (of `size` bytes), `redirect`, `sitemap`, `excluded` or `failed`, and why."""
        sql = "UPDATE urls SET state = ?, why = ?, status = ?, target = ?, bytes = ? WHERE id = ?"
        self._db.execute(sql, (state, why, status, target, size, id))

    def find(self, url: str) -> tuple[int, int, str] | None:
        """(id, depth, state) of a known address."""
        found: tuple[int, int, str] | None = self._db.execute(
            "SELECT id, depth, state FROM urls WHERE url = ?", (url,)
        ).fetchone()
        return found

    def waiting_hosts(self) -> list[str]:
        """The hosts that have addresses queued, in the order in which they were found."""
        sql = "SELECT host FROM urls WHERE state = 'queued' GROUP BY host ORDER BY min(id)"
        return [row[0] for row in self._db.execute(sql)]

    def next_due(self, host: str) -> float | None:
        """When the next queued address of `host` is due (seconds since the epoch); None where none is queued."""
        due = self._db.execute("SELECT min(due) FROM urls WHERE state = 'queued' AND host = ?", (host,)).fetchone()[0]
        return None if due is None else float(due)

    def count(self, state: str) -> int:
        """How many addresses are in `state`."""
        return int(self._db.execute("SELECT count(*) FROM urls WHERE state = ?", (state,)).fetchone()[0])

    def page_bytes(self) -> int:
        """How large the pages are together, as HTML."""
        return int(self._db.execute("SELECT coalesce(sum(bytes), 0) FROM urls WHERE state = 'page'").fetchone()[0])

    def outcomes(self) -> list[tuple[str, str, int]]:
        """(state, why, how many), the most frequent first."""
        sql = "SELECT state, why, count(*) FROM urls GROUP BY state, why ORDER BY count(*) DESC, state, why"
        return self._db.execute(sql).fetchall()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every address with its outcome, in the order of the addresses."""
        names = ("url", "state", "why", "status", "bytes", "depth", "target")
        for row in self._db.execute(f"SELECT {', '.join(names)} FROM urls ORDER BY url"):
            yield {k: v for k, v in zip(names, row, strict=True) if v not in ("", None)}

    def count_query(self, path: str) -> int:
        """Count one more query string of `path`; how many there are now."""
        sql = "INSERT INTO queries VALUES (?, 1) ON CONFLICT DO UPDATE SET number = number + 1 RETURNING number"
        return int(self._db.execute(sql, (path,)).fetchone()[0])

    def new_digest(self, digest: str) -> bool:
        """True the first time a payload is seen."""
        return self._db.execute("INSERT OR IGNORE INTO digests VALUES (?)", (digest,)).rowcount > 0

    def robots(self, origin: str) -> Robots | None:
        """The rules of `origin`, where they are known and fresh."""
        row = self._db.execute("SELECT text, why, fetched FROM robots WHERE origin = ?", (origin,)).fetchone()
        found = Robots(*row) if row else None
        return None if found is None or found.stale else found

    def keep_robots(self, origin: str, robots: Robots) -> None:
        """Remember the rules of `origin`."""
        row = (origin, robots.text, robots.why, robots.fetched)
        self._db.execute("INSERT OR REPLACE INTO robots VALUES (?, ?, ?, ?)", row)

    @property
    def position(self) -> tuple[int, int]:
        """(segment, byte): up to where the archive's records are marked here."""
        row = self._db.execute("SELECT value FROM facts WHERE name = 'position'").fetchone()
        segment, at = json.loads(row[0]) if row else (0, 0)
        return int(segment), int(at)

    @position.setter
    def position(self, value: Iterable[int]) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES ('position', ?)", (json.dumps(list(value)),))
