"""The live crawl: which host is asked next, what becomes of each answer, and when it is over.

One loop starts requests and takes in answers; what came back together is written together, with one fsync and one
commit. A host that is slow or asks for long delays holds up only itself: the loop goes by hosts, not by a queue of
pages.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import random
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from llmctl.console import Console, Progress
from llmctl.crawl.archive import Archive, digest_of
from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.fetch import Fetched, Fetcher
from llmctl.crawl.frontier import PAGE, Frontier, Job
from llmctl.crawl.links import page_links, sitemap_links
from llmctl.crawl.recrawl import CHANGED, NEW, UNCHANGED, Earlier, Known
from llmctl.crawl.robots import Robots, fetch_robots
from llmctl.crawl.urls import Scope, canonical, family, origin
from llmctl.formats.warc import HTML_TYPES, Record, content_type, http_response

_LONGEST_WAIT = 600.0  # a server that asks to come back later than this is left alone
_SITEMAP_BYTES = 50_000_000
_NAP = 30.0  # the longest sleep of the loop while it has nothing to do


@dataclass
class Slot:
    """What the crawl knows of one host while it runs."""

    delay: float
    ready: float = 0.0
    active: int = 0
    listed: bool = False


@dataclass
class Answer:
    """A finished request: for an address (`job`), or for an origin's robots.txt."""

    host: str
    job: Job | None = None
    page: Fetched | None = None
    origin: str = ""
    robots: Robots | None = None


Request = Coroutine[Any, Any, Answer]


class Crawler:
    """Crawls from the frontier's queue until it is empty or `max_pages` pages are stored."""

    def __init__(
        self,
        config: CrawlConfig,
        scope: Scope,
        frontier: Frontier,
        archive: Archive,
        fetcher: Fetcher,
        console: Console,
        earlier: Earlier | None = None,
    ) -> None:
        self.config, self.scope, self.frontier, self.archive = config, scope, frontier, archive
        self._fetcher, self._console, self._earlier = fetcher, console, earlier
        self._agent = config.politeness.user_agent
        self._strip = tuple(config.scope.strip_params)
        self._slots: dict[str, Slot] = {}
        self._robots: dict[str, Robots] = {}
        self._asking: set[str] = set()
        self._ready: list[tuple[float, str]] = []
        self._fetching = 0  # pages, not counting robots.txt
        self._pages = frontier.count(PAGE)
        self._most = 0
        self._bar: Progress | None = None

    def recover(self, found: list[tuple[Record, bool]]) -> None:
        """Take in pages that the archive holds and the frontier does not know to be done."""
        for record, unchanged in found:
            page, known = _page_of(record), self.frontier.find(record.url)
            if page is None or known is None or known[2] == PAGE:
                continue
            self._found_page(Job(known[0], record.url, "", "page", known[1], 0, 0), page, unchanged)
        self.frontier.position = self.archive.position
        self.frontier.commit()

    async def run(self, seeds: int) -> None:
        """Crawl. `seeds` is how many addresses were given: `max_pages` never cuts those."""
        self._most = max(self.config.max_pages, seeds)
        for host in self.frontier.waiting_hosts():
            self._list(host)
        tasks: set[asyncio.Task[Answer]] = set()
        with self._console.progress("crawl", self._most, "pages") as bar:
            self._bar = bar
            bar.start_at(self._pages)
            try:
                while True:
                    while len(tasks) < self.config.concurrency and (start := self._next()):
                        tasks.add(asyncio.create_task(start))
                    if not tasks and not self._ready:
                        break
                    if not tasks and self._pages >= self._most:
                        break
                    tasks = await self._wait(tasks)
            except asyncio.CancelledError:  # Ctrl-C: keep what has come back already
                self._keep([task for task in tasks if task.done() and not task.exception()])
                raise
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, tasks: set[asyncio.Task[Answer]]) -> set[asyncio.Task[Answer]]:
        """Sleep until an answer is there or a host is ready; take the answers in."""
        busy = len(tasks) >= self.config.concurrency or not self._ready or self._full()
        nap = _NAP if busy else min(_NAP, max(0.0, self._ready[0][0] - time.monotonic()))
        if not tasks:
            await asyncio.sleep(nap)
            return tasks
        done, tasks = await asyncio.wait(tasks, timeout=nap, return_when=asyncio.FIRST_COMPLETED)
        self._keep(done)
        return tasks

    def _keep(self, done: Iterable[asyncio.Task[Answer]]) -> None:
        """Take in the answers and put them on disk: the pages first, then the marks."""
        for task in done:
            self._take_in(task.result())
        self.frontier.position = self.archive.flush()
        self.frontier.commit()

    # -- which request next

    def _full(self) -> bool:
        return self._pages + self._fetching >= self._most

    def _next(self) -> Request | None:
        """The next request that may start now, or None."""
        while self._ready and self._ready[0][0] <= time.monotonic() and not self._full():
            _, host = heapq.heappop(self._ready)
            slot = self._slots[host]
            slot.listed = False
            request = self._request(host)
            if request is None:
                self._list_later(host)
                continue
            slot.active += 1
            slot.ready = time.monotonic() + slot.delay
            self._list(host)
            return request
        return None

    def _request(self, host: str) -> Request | None:
        """The next request to a host; addresses that robots.txt forbids are marked on the way."""
        while (job := self.frontier.take(host)) is not None:
            where = origin(job.url)
            rules = self._rules(where)
            if rules is None:
                self.frontier.put_back(job)
                if where in self._asking:
                    return None
                self._asking.add(where)
                return self._ask_robots(host, where)
            refusal = rules.refusal(job.url, self._agent)
            if not refusal:
                self._fetching += job.kind == "page"
                return self._fetch(host, job)
            self.frontier.finish(job.id, "excluded" if refusal.startswith("robots.txt") else "failed", refusal)
        return None

    def _rules(self, where: str) -> Robots | None:
        """The robots.txt of an origin; None where it must be asked for first."""
        if not self.config.politeness.robots:
            return Robots()
        found = self._robots.get(where) or self.frontier.robots(where)
        if found is None or found.stale:
            return None
        self._robots[where] = found
        slot = self._slots.get(urlsplit(where).netloc)
        if slot:
            slot.delay = max(slot.delay, found.delay(self._agent))
        return found

    def _list(self, host: str) -> None:
        """Put a host on the list of those that may be asked, at the time it is ready, unless it is busy or there."""
        slot = self._slots.setdefault(host, Slot(self.config.politeness.delay))
        most = self.config.politeness.per_host
        if len(self._slots) > 1:  # however many a host may have, half of all requests are left to the others
            most = min(most, max(1, self.config.concurrency // 2))
        if not slot.listed and slot.active < most:
            slot.listed = True
            heapq.heappush(self._ready, (slot.ready, host))

    def _list_later(self, host: str) -> None:
        """After nothing was due: list the host for when something is, if anything is queued."""
        due = self.frontier.next_due(host)
        slot = self._slots[host]
        if due is not None and slot.active == 0:
            slot.ready = max(slot.ready, time.monotonic() + max(0.0, due - time.time()))
            self._list(host)

    # -- the requests

    async def _ask_robots(self, host: str, where: str) -> Answer:
        settings = self.config.fetch
        rules = await fetch_robots(self._fetcher, where, settings.retries, settings.backoff)
        return Answer(host, origin=where, robots=rules)

    async def _fetch(self, host: str, job: Job) -> Answer:
        if job.kind == "sitemap":
            page = await self._fetcher.get(job.url, max_bytes=_SITEMAP_BYTES)
        else:
            known, types = self._known(job), tuple(self.config.fetch.content_types)
            page = await self._fetcher.get(job.url, types, conditions=known.conditions if known else None)
        return Answer(host, job=job, page=page)

    # -- the answers

    def _take_in(self, answer: Answer) -> None:
        slot = self._slots[answer.host]
        slot.active -= 1
        if answer.robots is not None:
            self._asking.discard(answer.origin)
            self._take_rules(answer.origin, answer.robots)
        else:
            assert answer.job is not None and answer.page is not None
            self._fetching -= answer.job.kind == "page"
            self._judge(answer.job, answer.page, slot)
        self._list(answer.host)

    def _take_rules(self, where: str, rules: Robots) -> None:
        self.frontier.keep_robots(where, rules)
        self._robots[where] = rules
        self._rules(where)
        if self.config.scope.sitemaps and self.config.scope.depth > 0:
            for found in rules.sitemaps[:100]:
                self._add_sitemap(found, where, 0)

    def _judge(self, job: Job, page: Fetched, slot: Slot) -> None:
        """What becomes of an answer: a page, a redirect, a retry, or a failure."""
        if page.redirects:
            self._redirect(job, page)
        elif page.passing and job.tries < self.config.fetch.retries and (page.retry_after or 0.0) <= _LONGEST_WAIT:
            wait = self.config.fetch.backoff * 2**job.tries
            wait = max(wait * random.uniform(0.75, 1.25), page.retry_after or 0.0)
            if page.status in (429, 503):  # the whole host asks for a pause, not just this page
                slot.ready = max(slot.ready, time.monotonic() + wait)
            self.frontier.put_back(job, time.time() + wait, failed=True)
        elif page.why:
            unwanted = page.why.startswith("content type")
            self.frontier.finish(job.id, "excluded" if unwanted else "failed", page.why, page.status)
        elif job.kind == "sitemap":
            self._take_sitemap(job, page)
        elif page.status == 304 or 200 <= page.status < 300:
            self._store(job, page)
        else:
            self.frontier.finish(job.id, "failed", f"status {page.status}", page.status)

    def _known(self, job: Job) -> Known | None:
        return self._earlier.find(job.url) if self._earlier else None

    def _store(self, job: Job, page: Fetched) -> None:
        """A page into the archive: as it came or, where it has not changed, as the earlier crawl has it."""
        known = self._known(job)
        if known and self._earlier and (page.status == 304 or digest_of(page.body) == known.digest):
            before = self._earlier.record(known)
            self.archive.add_unchanged(before, page)
            self._found_page(job, _page_of(before) or page, unchanged=True)
        elif page.status == 304:  # nothing was asked that this could answer
            self.frontier.finish(job.id, "failed", "status 304", page.status)
        else:
            self.archive.add_page(page)
            self._found_page(job, page)

    def _found_page(self, job: Job, page: Fetched, unchanged: bool = False) -> None:
        why = "" if not self._earlier else UNCHANGED if unchanged else CHANGED if self._known(job) else NEW
        self.frontier.finish(job.id, PAGE, why, page.status, size=len(page.body))
        self._pages += 1
        if self._bar is not None:
            self._bar.advance(1, note=urlsplit(page.url).netloc)
        kind, charset = content_type(page.header("content-type"))
        # A page that repeats another of its host byte for byte leads nowhere new: its links are how traps grow.
        new = self.frontier.new_digest(hashlib.sha1(urlsplit(page.url).netloc.encode() + page.body).hexdigest())
        if not new or job.depth >= self.config.scope.depth or kind not in ("", *HTML_TYPES):
            return
        base, links = page_links(page.body, charset, page.header("x-robots-tag"))
        base = canonical(base, page.url) or page.url if base else page.url
        for link in links:
            self._add_link(link, base, job.depth + 1)

    def _add_link(self, link: str, base: str, depth: int, hops: int = 0) -> str:
        """Queue a link if it is in scope; the reason where it is not followed."""
        url = canonical(link, base, self._strip)
        if url is None:
            return "no http address"
        refusal = self.scope.refusal(url, depth)
        if refusal:
            return refusal
        if self.frontier.find(url) is not None:
            return "known"
        kin = family(url)
        if kin and self.frontier.count_query(kin) > self.config.scope.max_queries:
            return "too many of one kind"
        host = urlsplit(url).netloc
        self.frontier.add(url, host, "page", depth, hops)
        self._list_later_or_now(host)
        return ""

    def _list_later_or_now(self, host: str) -> None:
        if self._most:  # while a killed crawl is taken up, the hosts are listed afterwards, all at once
            self._list(host)

    def _redirect(self, job: Job, page: Fetched) -> None:
        location = page.header("location")
        target = canonical(location, page.url, self._strip) or location
        if job.kind == "sitemap":
            why = self._add_sitemap(target, page.url, job.hops + 1)
        elif job.hops >= self.config.fetch.redirects:
            why = "too many redirects"
        else:
            why = self._add_link(location, page.url, job.depth, job.hops + 1)
        if why == "another host" and job.depth == 0:
            self._console.warn(f"{job.url} redirects to {target}, another host; to follow, add it to scope.hosts")
        state = "redirect" if why in ("", "known") else "failed"
        self.frontier.finish(job.id, state, "" if state == "redirect" else f"redirect: {why}", page.status, target)

    def _add_sitemap(self, link: str, base: str, hops: int) -> str:
        url = canonical(link, base)
        if url is None or hops > self.config.fetch.redirects:
            return "too many redirects" if url else "no http address"
        host = urlsplit(url).netloc
        if self.frontier.add(url, host, "sitemap", 0, hops):
            self._list(host)
            return ""
        return "known"

    def _take_sitemap(self, job: Job, page: Fetched) -> None:
        for link, index in sitemap_links(page.body):
            if index and self.frontier.count_query("sitemaps") <= 1000:
                self._add_sitemap(link, page.url, 0)
            elif not index:
                self._add_link(link, page.url, 1)
        self.frontier.finish(job.id, "sitemap", "", page.status)


def _page_of(record: Record) -> Fetched | None:
    """What a stored response says of a page; None where it holds no HTTP."""
    answer = http_response(record)
    if answer is None:
        return None
    status, headers, body = answer
    return Fetched(record.url, datetime.now(timezone.utc), status=status, headers=list(headers.headers), body=body)
