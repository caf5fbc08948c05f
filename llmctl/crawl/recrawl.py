"""Re-crawl: what an earlier crawl stored, so that a page is sent again only where it has changed.

An index of the earlier pages is made once, in the scratch folder of the new crawl: for each address where its record
lies, and the validators (ETag, Last-Modified) that the server gave for it. The record itself is read when it is needed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmctl.crawl.archive import digest_of
from llmctl.crawl.fetch import Headers
from llmctl.crawl.urls import canonical
from llmctl.formats.document import DamageList
from llmctl.formats.warc import Record, http_response, records

NEW, CHANGED, UNCHANGED, GONE = "new", "changed", "unchanged", "gone"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS known (
    url TEXT PRIMARY KEY, file TEXT NOT NULL, offset INTEGER NOT NULL, digest TEXT NOT NULL, etag TEXT NOT NULL,
    modified TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS complete (damaged INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Known:
    """A page of the earlier crawl: its record begins at byte `offset` of `file`."""

    url: str
    file: str
    offset: int
    digest: str
    etag: str
    modified: str

    @property
    def conditions(self) -> Headers:
        """The request headers that let the server answer 304. RFC 9110 has it prefer the ETag where both are sent."""
        asked = [("If-None-Match", self.etag), ("If-Modified-Since", self.modified)]
        return [(name, value) for name, value in asked if value]


class Earlier:
    """The pages in `folder`, indexed in the SQLite file `index`. `damaged` counts places that could not be read."""

    def __init__(self, folder: Path, index: Path, strip: tuple[str, ...]) -> None:
        self._folder = folder
        self._db = sqlite3.connect(index, isolation_level=None)
        self._db.executescript(_SCHEMA)
        row = self._db.execute("SELECT damaged FROM complete").fetchone()
        self.damaged = int(row[0]) if row else self._read(strip)

    def close(self) -> None:
        """Close the index."""
        self._db.close()

    def find(self, url: str) -> Known | None:
        """What is known of an address."""
        row = self._db.execute("SELECT * FROM known WHERE url = ?", (url,)).fetchone()
        return Known(*row) if row else None

    def record(self, known: Known) -> Record:
        """The `response` record of a page."""
        path = self._folder / known.file
        return next(records(path, known.file, DamageList(), known.offset))

    def urls(self) -> Iterator[str]:
        """Every address that had a page, in order."""
        for row in self._db.execute("SELECT url FROM known ORDER BY url"):
            yield row[0]

    def _read(self, strip: tuple[str, ...]) -> int:
        """Index every archive of the folder, in one transaction: after a kill it is done again."""
        damage = DamageList()
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM known")
        for path in sorted(self._folder.rglob("*.warc.gz")):
            name = path.relative_to(self._folder).as_posix()
            for record in records(path, name, damage):
                self._index(record, name, strip)
        damaged = len(damage.found)
        self._db.execute("INSERT INTO complete VALUES (?)", (damaged,))
        self._db.execute("COMMIT")
        return damaged

    def _index(self, record: Record, name: str, strip: tuple[str, ...]) -> None:
        if record.type not in ("response", "revisit") or canonical(record.url, strip=strip) != record.url:
            return
        answer = http_response(record)
        if answer is None:
            return
        status, headers, body = answer
        etag, modified = headers.get_header("ETag") or "", headers.get_header("Last-Modified") or ""
        if record.type == "revisit":  # its validators are the newer ones (RFC 9111, 4.3.4)
            sql = "UPDATE known SET etag = coalesce(nullif(?, ''), etag), modified = coalesce(nullif(?, ''), modified) "
            self._db.execute(sql + "WHERE url = ?", (etag, modified, record.url))
        elif 200 <= status < 300:
            row = (record.url, name, record.offset, digest_of(body), etag, modified)
            self._db.execute("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?)", row)
