"""Pages from Common Crawl: single captures by the URL index, or whole WARC and WET files.

Each capture is a gzip member of a file on the web, fetched by its range, checked, and written byte for byte; a whole
file is downloaded beside and then copied record by record. The segments carry the crawl's id in their name, by which
`llmctl filter` fills the column `dump`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

from llmctl.console import Console, Progress
from llmctl.crawl import cc_source
from llmctl.crawl.archive import Archive
from llmctl.crawl.cc_client import Client
from llmctl.crawl.cc_ledger import FAILED, PAGE, Capture, File, Ledger
from llmctl.crawl.cc_source import Files, Query
from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.fetch import Fetcher
from llmctl.crawl.local import copy_record, members
from llmctl.crawl.network import GuardedBackend
from llmctl.errors import Interrupted, UserError
from llmctl.formats.document import Damage, DamageList
from llmctl.formats.warc import Record, is_page, one_record, payload, records

_FLUSH = 16_000_000  # bytes of a whole file that are held before they are written


class Downloader:
    """Takes everything that `cc:` sources name into archives below `folder`; `scratch` keeps the progress."""

    def __init__(
        self, config: CrawlConfig, client: Client, ledger: Ledger, folder: Path, scratch: Path, console: Console
    ) -> None:
        self._config, self._client, self._ledger, self._console = config, client, ledger, console
        self._folder, self._scratch = folder, scratch

    async def run(self, sources: list[str]) -> None:
        """Fetch what is not there yet."""
        for source in sources:
            found = cc_source.parse(source)
            crawl = self._ledger.fact(f"crawl {found.crawl}")
            if crawl is None:
                crawl = await self._client.resolve(found.crawl)
                self._ledger.keep(f"crawl {found.crawl}", crawl)
            if isinstance(found, Query):
                query = resolved(found, crawl, self._config)
                await self._list(source, query)
                await self._fetch(source, query)
            else:
                await self._whole(source, crawl, found)

    # -- single captures

    async def _list(self, source: str, query: Query) -> None:
        """Ask the index for every capture, once."""
        pages = self._ledger.fact(f"pages {source}")
        if pages is None:
            pages = str((await self._client.pages(query))[0])
            self._ledger.keep(f"pages {source}", pages)
        page = int(self._ledger.fact(f"next page {source}") or 0)
        with self._console.progress("index", int(pages), "pages") as bar:
            bar.start_at(page)
            while page < int(pages) and (query.limit is None or self._ledger.count(source) < query.limit):
                self._ledger.add(source, await self._client.captures(query, page), query.limit)
                page += 1
                self._ledger.keep(f"next page {source}", str(page))
                self._ledger.commit()
                bar.advance(1, note=f"{self._ledger.count(source):,} captures")
        if not self._ledger.count(source):
            self._ledger.note([Damage(source, "", f"no captures in {query.crawl}")])

    async def _fetch(self, source: str, query: Query) -> None:
        """Fetch the captures that are waiting, a few at a time; each is on disk before it is marked."""
        archive = Archive(self._folder, query.crawl, self._config.segment_bytes, self._ledger.position(query.crawl))
        self._recover(archive)
        left = self._ledger.count(source, "queued")
        self._console.info(f"{source}: {left:,} captures, {self._ledger.waiting_bytes(source) / 1e6:,.1f} MB to fetch")
        tasks: dict[asyncio.Task[tuple[bytes, str]], Capture] = {}
        behind = 0
        with self._console.progress("captures", self._ledger.count(source), "pages") as bar:
            bar.start_at(self._ledger.count(source) - left)
            try:
                while True:
                    while len(tasks) < self._config.common_crawl.connections:
                        capture = self._ledger.waiting(source, behind)
                        if capture is None:
                            break
                        behind = capture.id
                        tasks[asyncio.create_task(self._client.member(capture))] = capture
                    if not tasks:
                        return
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    self._keep(archive, [(tasks.pop(task), *task.result()) for task in done], bar)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _keep(self, archive: Archive, found: list[tuple[Capture, bytes, str]], bar: Progress) -> None:
        """Put captures on disk, then mark them. One that is not what the index says is named and left out."""
        for capture, member, why in found:
            try:
                record = checked(member, capture, why)
            except ValueError as e:
                damage = DamageList(self._config.strict)
                damage.add(capture.filename, f"byte {capture.start:,}", f"{capture.url}: {e}")
                self._ledger.note(damage)
                self._ledger.finish(capture.id, FAILED)
            else:
                archive.add_member(member)
                self._ledger.finish(capture.id, PAGE, len(record.block))
            bar.advance(1, note=urlsplit(capture.url).netloc)
        self._ledger.keep_position(archive.name, archive.flush())
        self._ledger.commit()

    def _recover(self, archive: Archive) -> None:
        """Mark the captures that a kill kept from being marked, and cut off what it tore."""
        segment, start = end = archive.position
        while archive.path(segment).exists():
            for record in records(archive.path(segment), archive.name, DamageList(), start):
                id = self._ledger.find(_address(record), re.sub(r"\D", "", record.header("WARC-Date"))[:14])
                if id is not None and record.end is not None:
                    self._ledger.finish(id, PAGE, len(record.block))
                    end = (segment, record.end)
            segment, start = segment + 1, 0
        archive.cut(*end)
        self._ledger.keep_position(archive.name, end)
        self._ledger.commit()

    # -- whole files

    async def _whole(self, source: str, crawl: str, files: Files) -> None:
        """Download and copy the files that a source names, one after the other."""
        listed = f"listed {source}"
        if self._ledger.fact(listed) is None:
            paths = await self._client.paths(crawl, files.kind)
            absent = [n for n in files.numbers if n >= len(paths)]
            if absent:
                what = (
                    f"{crawl} has {len(paths):,} {files.kind} files, 0 to {len(paths) - 1:,}; there is no {absent[0]:,}"
                )
                raise UserError(what, source, "give others")
            for number in files.numbers:
                self._ledger.add_file(source, paths[number])
            self._ledger.keep(listed, "yes")
            self._ledger.commit()
        name = f"{crawl}-{files.kind}"
        archive = Archive(self._folder, name, self._config.segment_bytes, self._ledger.position(name))
        archive.cut(*archive.position)
        while (file := self._ledger.next_file(source)) is not None:
            part = self._scratch / f"file-{file.id}.part"
            await self._download(file, part)
            self._copy(file, part, archive)
            part.unlink()

    async def _download(self, file: File, part: Path) -> None:
        if part.exists() and part.stat().st_size == file.size:
            return
        with open(part, "ab") as f, self._console.progress("download", None, "MB") as bar:
            shown = 0

            def tell(there: int) -> None:
                nonlocal shown
                bar.advance(there // 1_000_000 - shown, note=Path(file.path).name)
                shown = there // 1_000_000

            try:
                file.size = await self._client.download(file.path, f, tell)
            except OSError as e:
                raise UserError(f"cannot write it: {e.strerror}", str(part), "make room, then run it again") from e
        self._ledger.keep_file(file)
        self._ledger.commit()

    def _copy(self, file: File, part: Path, archive: Archive) -> None:
        """The whole records of a file, from where an earlier run got to."""
        damage = DamageList(self._config.strict)

        def keep(done: bool) -> None:
            self._ledger.keep_position(archive.name, archive.flush())
            self._ledger.keep_file(file, done)
            self._ledger.note(damage)
            damage.found.clear()
            self._ledger.commit()

        held = 0
        with self._console.progress("copy", None, "pages") as bar:
            for record, member in members(part, file.path, damage, file.copied):
                copy_record(archive, record, member)
                page = is_page(record)
                file.pages, file.bytes = file.pages + page, file.bytes + page * len(record.block)
                held += len(record.block)
                bar.advance(page)
                if held > _FLUSH and record.end is not None:
                    file.copied, held = record.end, 0
                    keep(False)
        keep(True)


def resolved(query: Query, crawl: str, config: CrawlConfig) -> Query:
    """A query with everything in it that it leaves to the settings."""
    mime = query.mime or tuple(config.fetch.content_types)
    return Query(crawl, query.url, query.match, query.lang, mime, query.status, query.limit)


def checked(member: bytes, capture: Capture, why: str = "") -> Record:
    """The record of a capture. ValueError where the bytes are not it."""
    if why or len(member) != capture.length:
        raise ValueError(why or f"{len(member):,} bytes came of {capture.length:,}")
    record = one_record(member)
    if _address(record) != capture.url:
        raise ValueError(f"another record is there: {_address(record)}")
    digests = (sha1(payload(record)), record.header("WARC-Payload-Digest").removeprefix("sha1:"))
    if capture.digest and capture.digest not in digests:
        raise ValueError(f"its digest is {digests[0]}, not {capture.digest}")
    return record


def sha1(data: bytes) -> str:
    """A digest as WARC and the index write it: SHA-1 in base 32."""
    return base64.b32encode(hashlib.sha1(data).digest()).decode()


def _address(record: Record) -> str:
    return record.url.removeprefix("<").removesuffix(">")  # WARC 1.0 as wget reads it has brackets


def copy_common_crawl(
    sources: list[str],
    config: CrawlConfig,
    folder: Path,
    scratch: Path,
    network: GuardedBackend,
    agent: str,
    console: Console,
) -> tuple[int, int, list[Damage]]:
    """Everything that `sources` name, in `folder`: (pages, bytes, what was damaged). A killed run is taken up."""
    ledger = Ledger(scratch / "common-crawl.sqlite")

    async def work() -> None:
        async with Fetcher(config.fetch, agent, config.common_crawl.connections, network) as fetcher:
            client = Client(fetcher, config, console)
            await Downloader(config, client, ledger, folder, scratch, console).run(sources)

    try:
        asyncio.run(work())
        return (*ledger.totals(), ledger.damage())
    except KeyboardInterrupt:
        how = f"{ledger.totals()[0]:,} pages are stored; run the same command again to go on"
        raise Interrupted(how) from None
    finally:
        ledger.close()


def plan_common_crawl(source: str, config: CrawlConfig, network: GuardedBackend, agent: str) -> str:
    """What a source comes to. The index is asked one thing, once: how large its answer would be."""
    found = cc_source.parse(source)
    if isinstance(found, Files):
        each = {"warc": 1.0, "wet": 0.1}[found.kind]  # GB, as crawls of the 2020s have it
        return f"{len(found.numbers):,} files of {found.crawl}, about {len(found.numbers) * each:,.1f} GB"
    hurried = config.model_copy(update={"common_crawl": config.common_crawl.model_copy(update={"retries": 0})})

    async def ask(query: Query) -> tuple[str, int, int]:
        async with Fetcher(config.fetch, agent, 1, network) as fetcher:
            client = Client(fetcher, hurried, Console(quiet=True))
            crawl = await client.resolve(query.crawl)
            return (crawl, *await client.pages(resolved(query, crawl, config)))

    try:
        crawl, pages, most = asyncio.run(ask(found))
    except UserError as e:
        return f"the index of {found.crawl} cannot be asked now: {e.what}"
    most = most if found.limit is None else min(most, found.limit)
    return f"{pages:,} pages of the index of {crawl}, at most {most:,} captures before the filters"
