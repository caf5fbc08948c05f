"""Common Crawl's two services: the URL index (pywb's CDX server API) and the files, by ranges.

The index is small and much used: it is asked one thing at a time, `politeness.delay` apart. Both services answer 503
(or 429) to who asks too fast; then every request to that service waits, for as long as Retry-After says or for twice as
long as the last time.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import BinaryIO
from urllib.parse import quote, urlencode

from llmctl.console import Console
from llmctl.crawl.cc_ledger import Capture
from llmctl.crawl.cc_source import LATEST, Query
from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.fetch import Fetched, Fetcher
from llmctl.errors import UserError, nearest

_LONGEST_WAIT = 600.0  # a Retry-After above this is somebody else's mistake, or a ban
_BACKOFF = 120.0  # the longest pause of our own
_INDEX_BYTES = 100_000_000  # a page of the index is 15,000 lines of some 400 bytes
BLOCK = 3000  # captures in a block of the index


class Client:
    """Asks, and asks again. UserError where a service is not to be had; what was fetched until then is kept."""

    def __init__(self, fetcher: Fetcher, config: CrawlConfig, console: Console) -> None:
        self._fetcher, self._console = fetcher, console
        self._index = config.common_crawl.index.rstrip("/")
        self._data = config.common_crawl.data.rstrip("/")
        self._retries, self._backoff = config.common_crawl.retries, config.fetch.backoff
        self._delay = config.politeness.delay
        self._free = {self._index: 0.0, self._data: 0.0}  # when a service may be asked again

    async def crawls(self) -> list[str]:
        """The ids of all crawls that have an index, the newest first."""
        url = f"{self._index}/collinfo.json"
        got = await self._ask_index(url)
        try:
            return [str(row["id"]) for row in json.loads(_whole(got, url))]
        except (ValueError, TypeError, KeyError) as e:
            raise UserError("the list of crawls is not what it should be", url, "check common_crawl.index") from e

    async def resolve(self, crawl: str) -> str:
        """The id of `latest`, or the id itself."""
        return (await self.crawls())[0] if crawl == LATEST else crawl

    async def pages(self, query: Query) -> tuple[int, int]:
        """(pages of the index, captures they hold at most) for a query; (0, 0) where there are none."""
        found = await self._cdx(query, [("showNumPages", "true")])
        told = found[0] if found else {}
        return int(told.get("pages", 0)), int(told.get("blocks", 0)) * BLOCK

    async def captures(self, query: Query, page: int) -> list[Capture]:
        """The captures on one page of the index that pass the query's filters."""
        filters = query.filters()
        asked = [("filter", f"~{name}:{pattern.pattern}") for name, pattern in filters.items()]
        found = []
        for row in await self._cdx(query, [("page", str(page)), *asked]):
            # A mirror's index may know fewer filters than pywb's.
            if all(pattern.match(str(row.get(name, ""))) for name, pattern in filters.items()):
                found.append(_capture(row, self._index))
        return found

    async def _cdx(self, query: Query, asked: list[tuple[str, str]]) -> list[dict[str, str]]:
        """The rows of an answer of the index; none where it has no captures."""
        params = [("url", query.url), ("matchType", query.match), ("output", "json"), *asked]
        url = f"{self._index}/{query.crawl}-index?{urlencode(params)}"
        got = await self._ask_index(url)
        if got.status == 404 and b"captures found" in got.body.lower():
            return []
        if got.status == 404:
            await self.unknown(query.crawl)
        try:
            rows = [json.loads(line) for line in _whole(got, url).splitlines() if line.strip()]
        except ValueError as e:
            raise UserError("the index does not answer in JSON", url, "check common_crawl.index") from e
        return [row for row in rows if isinstance(row, dict)]

    async def unknown(self, crawl: str) -> None:
        """UserError: there is no such crawl."""
        crawls = await self.crawls()
        there = f"the latest are {', '.join(crawls[:5])}; latest means the first"
        raise UserError(f"there is no crawl {crawl!r}{nearest(crawl, crawls)}", self._index, there)

    async def paths(self, crawl: str, kind: str) -> list[str]:
        """The listing of a crawl's `warc` or `wet` files."""
        url = f"{self._data}/crawl-data/{crawl}/{kind}.paths.gz"
        got = await self._patiently(self._data, url, lambda: self._fetcher.get(url, max_bytes=_INDEX_BYTES))
        if got.status == 404:
            await self.unknown(crawl)
        raw = _whole(got, url)
        try:
            return (gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw).decode("utf-8").split()
        except (OSError, EOFError, zlib.error, ValueError) as e:
            raise UserError("the listing of files is damaged", url, "check common_crawl.data") from e

    async def member(self, capture: Capture) -> tuple[bytes, str]:
        """(the bytes of a capture, why they are not what was asked for)."""
        url, body = f"{self._data}/{quote(capture.filename)}", bytearray()

        async def ask() -> Fetched:
            body.clear()
            return await self._fetcher.get_range(url, capture.start, capture.start + capture.length, body.extend)

        got = await self._patiently(self._data, url, ask)
        return bytes(body), got.why or ("" if got.status == 206 else f"status {got.status}, and no range")

    async def download(self, path: str, file: BinaryIO, tell: Callable[[int], None]) -> int:
        """A whole file behind what `file` holds of it. Its size. `tell` gets the bytes there are so far."""
        url = f"{self._data}/{quote(path)}"

        async def ask() -> Fetched:
            got = await self._fetcher.get_range(url, file.tell(), None, take)
            file.flush()
            return got

        def take(chunk: bytes) -> None:
            file.write(chunk)
            tell(file.tell())

        got = await self._patiently(self._data, url, ask, file.tell)
        size = got.header("content-range").rpartition("/")[2]
        if got.status not in (206, 416) or not size.isdigit() or int(size) != file.tell():
            raise UserError(got.why or f"status {got.status}, and no range", url, "check common_crawl.data")
        return int(size)

    async def _ask_index(self, url: str) -> Fetched:
        got = await self._patiently(self._index, url, lambda: self._fetcher.get(url, max_bytes=_INDEX_BYTES))
        self._free[self._index] = max(self._free[self._index], time.monotonic() + self._delay)
        return got

    async def _patiently(
        self, service: str, url: str, ask: Callable[[], Awaitable[Fetched]], reached: Callable[[], int] = lambda: 0
    ) -> Fetched:
        """Ask until there is an answer. A try that got further than the last (`reached`) does not count."""
        tries, best = 0, reached()
        while True:
            await asyncio.sleep(max(0.0, self._free[service] - time.monotonic()))
            got = await ask()
            tries, best = (1 if reached() > best else tries + 1), reached()
            if not got.passing:
                break
            if tries > self._retries or (got.retry_after or 0.0) > _LONGEST_WAIT:
                raise UserError(f"{got.why}, {tries} times in a row", url, _LATER)
            wait = min(_BACKOFF, self._backoff * 2 ** (tries - 1)) * random.uniform(0.75, 1.25)
            self._free[service] = max(self._free[service], time.monotonic() + max(wait, got.retry_after or 0.0))
        if got.status in (401, 403):  # how both services treat who did not slow down at 503
            raise UserError(f"{service} refuses ({got.why})", url, _LATER)
        if got.redirects:
            raise UserError(f"it has moved to {got.header('location')}", url, "set common_crawl.index or .data to that")
        if not got.status:
            raise UserError(got.why, url, "check the network, and common_crawl.index and .data")
        return got


_LATER = "what there is so far is kept: run the same command again later"


def _whole(got: Fetched, url: str) -> bytes:
    if got.why:
        raise UserError(got.why, url, "check the source, and common_crawl.index and .data")
    return got.body


def _capture(row: dict[str, str], where: str) -> Capture:
    try:
        return Capture(
            row["url"],
            row["timestamp"],
            row.get("digest", "").removeprefix("sha1:"),
            row["filename"],
            int(row["offset"]),
            int(row["length"]),
        )
    except (KeyError, ValueError) as e:
        raise UserError(f"a line of the index has no {e}", where, "check common_crawl.index") from e
