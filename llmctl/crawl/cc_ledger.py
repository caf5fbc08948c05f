"""What a Common Crawl download knows and has: a SQLite file that survives a kill.

As in the frontier of a live crawl, a capture is marked in the same transaction that moves the place up to which the
archive is accounted for.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llmctl.formats.document import Damage

QUEUED, PAGE, FAILED = "queued", "page", "failed"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS captures (
    id INTEGER PRIMARY KEY, query TEXT NOT NULL, url TEXT NOT NULL, timestamp TEXT NOT NULL, digest TEXT NOT NULL,
    filename TEXT NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'queued',
    bytes INTEGER NOT NULL DEFAULT 0, UNIQUE (filename, start));
CREATE INDEX IF NOT EXISTS waiting ON captures (query, id) WHERE state = 'queued';
CREATE INDEX IF NOT EXISTS addresses ON captures (url, timestamp);
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, path TEXT UNIQUE NOT NULL, size INTEGER NOT NULL DEFAULT -1,
    copied INTEGER NOT NULL DEFAULT 0, pages INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS damage (file TEXT NOT NULL, place TEXT NOT NULL, what TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Capture:
    """One line of the URL index: a page, and the bytes of the file that hold it. `id` is 0 until it is in the ledger.

    `timestamp` is the record's date as 14 digits, `digest` the SHA-1 of its payload in base 32.
    """

    url: str
    timestamp: str
    digest: str
    filename: str
    start: int
    length: int
    id: int = 0


@dataclass
class File:
    """A whole file. `size` is -1 until a server has told it; `copied` is how far its records are in the archive."""

    id: int
    path: str
    size: int
    copied: int
    pages: int
    bytes: int


class Ledger:
    """The captures and files of one download. Nothing is on disk before `commit`."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")

    def commit(self) -> None:
        """Put everything since the last call on disk, whole."""
        self._db.execute("COMMIT")
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Keep what is committed, forget the rest."""
        self._db.close()

    def fact(self, name: str) -> str | None:
        """Something that was found out and need not be asked again."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def keep(self, name: str, value: str) -> None:
        """Remember a fact."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def position(self, archive: str) -> tuple[int, int]:
        """(segment, byte) up to where an archive's records are marked here."""
        segment, at = json.loads(self.fact(f"position {archive}") or "[0, 0]")
        return int(segment), int(at)

    def keep_position(self, archive: str, value: tuple[int, int]) -> None:
        """Move the place up to where an archive is accounted for."""
        self.keep(f"position {archive}", json.dumps(value))

    def add(self, query: str, captures: Iterable[Capture], limit: int | None) -> None:
        """Queue captures, each once, up to `limit` of the query altogether."""
        room = None if limit is None else limit - self.count(query)
        for capture in captures:
            if room == 0:
                return
            sql = "INSERT OR IGNORE INTO captures (query, url, timestamp, digest, filename, start, length) VALUES "
            c = capture
            row = (query, c.url, c.timestamp, c.digest, c.filename, c.start, c.length)
            new = self._db.execute(sql + "(?, ?, ?, ?, ?, ?, ?)", row).rowcount
            room = None if room is None else room - new

    def count(self, query: str, state: str = "%") -> int:
        """How many captures of a query there are, in all states or in one."""
        sql = "SELECT count(*) FROM captures WHERE query = ? AND state LIKE ?"
        return int(self._db.execute(sql, (query, state)).fetchone()[0])

    def waiting(self, query: str, behind: int) -> Capture | None:
        """The first capture with an id above `behind` that is still to be fetched."""
        row = self._db.execute(
            "SELECT url, timestamp, digest, filename, start, length, id FROM captures "
            "WHERE state = 'queued' AND query = ? AND id > ? ORDER BY id LIMIT 1",
            (query, behind),
        ).fetchone()
        return Capture(*row) if row else None

    def waiting_bytes(self, query: str) -> int:
        """How much there is to fetch for a query."""
        sql = "SELECT coalesce(sum(length), 0) FROM captures WHERE state = 'queued' AND query = ?"
        return int(self._db.execute(sql, (query,)).fetchone()[0])

    def finish(self, id: int, state: str, size: int = 0) -> None:
        """Say how a capture ended: `page` (of `size` bytes) or `failed`."""
        self._db.execute("UPDATE captures SET state = ?, bytes = ? WHERE id = ?", (state, size, id))

    def find(self, url: str, timestamp: str) -> int | None:
        """The queued capture of an address at a time."""
        sql = "SELECT id FROM captures WHERE state = 'queued' AND url = ? AND timestamp = ? ORDER BY id LIMIT 1"
        row = self._db.execute(sql, (url, timestamp)).fetchone()
        return int(row[0]) if row else None

    def add_file(self, source: str, path: str) -> None:
        """Queue a whole file."""
        self._db.execute("INSERT OR IGNORE INTO files (source, path) VALUES (?, ?)", (source, path))

    def next_file(self, source: str) -> File | None:
        """The first file of a source that is not copied to its end."""
        sql = "SELECT id, path, size, copied, pages, bytes FROM files WHERE source = ? AND NOT done ORDER BY id LIMIT 1"
        row = self._db.execute(sql, (source,)).fetchone()
        return File(*row) if row else None

    def keep_file(self, file: File, done: bool = False) -> None:
        """Remember how far a file is."""
        sql = "UPDATE files SET size = ?, copied = ?, pages = ?, bytes = ?, done = ? WHERE id = ?"
        self._db.execute(sql, (file.size, file.copied, file.pages, file.bytes, int(done), file.id))

    def note(self, damage: Iterable[Damage]) -> None:
        """Remember damaged places."""
        self._db.executemany("INSERT INTO damage VALUES (?, ?, ?)", ((d.file, d.where, d.what) for d in damage))

    def damage(self) -> list[Damage]:
        """Every damaged place that was met."""
        return [Damage(*row) for row in self._db.execute("SELECT file, place, what FROM damage ORDER BY rowid")]

    def totals(self) -> tuple[int, int]:
        """(pages, their bytes) of everything that is in the archives."""
        pages = size = 0
        for table, number in (("captures", "state = 'page'"), ("files", "pages")):
            row = self._db.execute(
                f"SELECT coalesce(sum({number}), 0), coalesce(sum(bytes), 0) FROM {table}"
            ).fetchone()
            pages, size = pages + int(row[0]), size + int(row[1])
        return pages, size
