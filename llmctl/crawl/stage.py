"""`llmctl crawl`: sources of any kind become pages."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmctl import __version__
from llmctl.console import Console
from llmctl.crawl.archive import Archive
from llmctl.crawl.common_crawl import copy_common_crawl, plan_common_crawl
from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.crawler import Crawler
from llmctl.crawl.demo import ADDRESS, Demo
from llmctl.crawl.fetch import Fetcher
from llmctl.crawl.frontier import PAGE, Frontier, room_needed
from llmctl.crawl.local import copy_local
from llmctl.crawl.network import GuardedBackend, names_private
from llmctl.crawl.recrawl import CHANGED, GONE, NEW, UNCHANGED, Earlier
from llmctl.crawl.sources import Kind, classify
from llmctl.crawl.urls import Scope, canonical
from llmctl.errors import Interrupted, UserError
from llmctl.formats.web import Damage, document_files
from llmctl.workspace import Artifact, Build, Workspace
from llmctl.workspace.build import now
from llmctl.workspace.files import write_atomic

_SHOWN = 8  # lines of a list that a person is shown; the rest is in the artifact


@dataclass
class Done:
    """What the stage has to tell: pages copied and fetched, their size, what became of addresses, what is damaged."""

    copied: int = 0
    fetched: int = 0
    bytes: int = 0
    outcomes: list[tuple[str, str, int]] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    recrawl: dict[str, int] = field(default_factory=dict)

    @property
    def pages(self) -> int:
        """All of them."""
        return self.copied + self.fetched


def run(config: CrawlConfig, workspace: Workspace, console: Console) -> Artifact:
    """Fetch, or copy, everything the sources name."""
    with workspace.build(config) as build:
        local = [s for s in config.sources if classify(s) in (Kind.LOCAL, Kind.HUB)]
        done = Done()
        if local:
            done.copied, done.bytes = copy_local(local, config, workspace, build.path, console, done.damage)
        stored = [s for s in config.sources if classify(s) is Kind.COMMON_CRAWL]
        if stored:
            _common_crawl(stored, config, build, console, done)
        if len(local) + len(stored) < len(config.sources):
            _live(config, workspace, build, console, done)
        if not done.pages:
            _nothing(build, config, done)
        _report(build, console, config, done)
    return build.done()


def plan(config: CrawlConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What would be fetched, from where, and how long politeness alone makes it take."""
    rows: list[tuple[str, str]] = []
    for source in config.sources:
        kind = classify(source)
        if kind is Kind.LOCAL:
            path = _local_path(source, workspace)
            files = [file for file, _, _ in document_files(path)]
            rows.append((source, f"{len(files):,} files, {_size(sum(f.stat().st_size for f in files))}"))
        elif kind is Kind.COMMON_CRAWL:
            rows.append((source, plan_common_crawl(source, config, _services(config), _agent(config))))
        else:
            rows.append((source, {Kind.DEMO: "the demo site", Kind.HUB: "streamed from the hub"}.get(kind, "live")))
    seeds = _seeds(config)
    if seeds:
        polite, fetch = config.politeness, config.fetch
        delay = 0.0 if seeds == [ADDRESS] else polite.delay
        most = max(config.max_pages, len(seeds))
        hosts = config.scope.hosts or sorted({urlsplit(s).netloc for s in seeds})
        rows += [
            (
                "hosts",
                ", ".join(hosts[:_SHOWN]) + (f" and {len(hosts) - _SHOWN:,} more" if len(hosts) > _SHOWN else ""),
            ),
            *([("since", f"{config.since}: what has not changed is taken from there")] if config.since else []),
            ("depth", str(config.scope.depth)),
            ("at most", f"{most:,} pages, {_size(most * fetch.max_bytes)}"),
            ("delay", f"{delay:g} s between requests to a host, {polite.per_host} at a time"),
            ("time", f"at least {most * delay / len(hosts) / 60:,.0f} min for {most:,} pages"),
        ]
    return rows


def _common_crawl(sources: list[str], config: CrawlConfig, build: Build, console: Console, done: Done) -> None:
    """Captures and files of Common Crawl."""
    pages, size, damage = copy_common_crawl(
        sources, config, build.path, build.scratch, _services(config), _agent(config), console
    )
    done.fetched, done.bytes = done.fetched + pages, done.bytes + size
    done.damage += damage


def _services(config: CrawlConfig) -> GuardedBackend:
    """The network, with Common Crawl's addresses allowed wherever they are."""
    return GuardedBackend(_allowed(config, [config.common_crawl.index, config.common_crawl.data]))


def _agent(config: CrawlConfig) -> str:
    """The User-Agent header: who asks, and how to reach them."""
    polite = config.politeness
    return f"{polite.user_agent}/{__version__} (+{polite.contact or 'no contact given'})"


def _seeds(config: CrawlConfig) -> list[str]:
    """The addresses to begin with, each once, in their one spelling."""
    seeds: dict[str, None] = {}
    for source in config.sources:
        kind = classify(source)
        if kind is Kind.DEMO:
            seeds[ADDRESS] = None
        elif kind is Kind.URL:
            url = canonical(source, strip=tuple(config.scope.strip_params))
            if url is None:
                raise UserError("it is no address", source, "write it as https://example.org/page")
            seeds[url] = None
    return list(seeds)


def _live(config: CrawlConfig, workspace: Workspace, build: Build, console: Console, done: Done) -> None:
    """The live crawl."""
    seeds = _seeds(config)
    scope = Scope(seeds, config.scope.hosts, config.scope.include, config.scope.exclude, config.scope.depth)
    with ExitStack() as stack:
        stack.enter_context(room_needed(build.scratch))
        frontier = Frontier(build.scratch / "frontier.sqlite")
        stack.callback(frontier.close)
        earlier = _earlier(config, workspace, build, console, stack)
        archive = Archive(build.path, "live", config.segment_bytes, frontier.position, date=now())
        found = archive.recover()
        for seed in seeds:
            frontier.add(seed, urlsplit(seed).netloc)
        frontier.commit()
        routes = {}
        if ADDRESS in seeds:
            demo = stack.enter_context(Demo())
            routes[f"{urlsplit(ADDRESS).netloc}:80"] = ("127.0.0.1", demo.port)
            if seeds == [ADDRESS]:  # the site is ours: there is nobody to be polite to
                config = config.model_copy(update={"politeness": config.politeness.model_copy(update=_UNHURRIED)})
        network = GuardedBackend(_allowed(config, seeds), routes)
        try:
            asyncio.run(_crawl(config, scope, frontier, archive, network, console, found, len(seeds), earlier))
        except KeyboardInterrupt:
            raise Interrupted(
                f"{frontier.count(PAGE):,} pages are stored; run the same command again to go on"
            ) from None
        if earlier:
            done.recrawl = _compare(earlier, frontier)
        write_atomic(build.path / "urls.jsonl", "".join(_json_lines(frontier)))
        _warn_waiting(frontier, config, console)
        done.outcomes = frontier.outcomes()
        done.fetched += frontier.count(PAGE)
        done.bytes += frontier.page_bytes()


def _earlier(
    config: CrawlConfig, workspace: Workspace, build: Build, console: Console, stack: ExitStack
) -> Earlier | None:
    """The pages of `since`, indexed."""
    if not config.since:
        return None
    found = workspace.find(config.since, ["pages"])
    earlier = Earlier(found.path, build.scratch / "earlier.sqlite", tuple(config.scope.strip_params))
    stack.callback(earlier.close)
    if earlier.damaged:
        console.warn(f"{config.since}: {earlier.damaged:,} damaged places; the pages there are fetched anew")
    return earlier


def _compare(earlier: Earlier, frontier: Frontier) -> dict[str, int]:
    """How the pages differ from the earlier ones. Those that no link led to any more are marked as gone."""
    pages = {why: n for state, why, n in frontier.outcomes() if state == PAGE}
    gone = 0
    for url in earlier.urls():
        known = frontier.find(url)
        gone += known is None or known[2] != PAGE
        if known is None:
            frontier.add(url, urlsplit(url).netloc, state=GONE, why="not reached any more")
    frontier.commit()
    return {**{what: pages.get(what, 0) for what in (NEW, CHANGED, UNCHANGED)}, GONE: gone}


_UNHURRIED = {"delay": 0.0, "per_host": 4}


async def _crawl(
    config: CrawlConfig,
    scope: Scope,
    frontier: Frontier,
    archive: Archive,
    network: GuardedBackend,
    console: Console,
    found: list[Any],
    seeds: int,
    earlier: Earlier | None,
) -> None:
    async with Fetcher(config.fetch, _agent(config), config.concurrency, network) as fetcher:
        crawler = Crawler(config, scope, frontier, archive, fetcher, console, earlier)
        crawler.recover(found)
        await crawler.run(seeds)


def _allowed(config: CrawlConfig, seeds: list[str]) -> list[str]:
    """`host:port` of the sources that name a private address, and the hosts that the person allows."""
    own = []
    for seed in seeds:
        parts = urlsplit(seed)
        if parts.hostname and names_private(parts.hostname):
            own.append(f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}")
    return [*own, *config.politeness.private_hosts]


def _json_lines(frontier: Frontier) -> Iterator[str]:
    for row in frontier.rows():
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _warn_waiting(frontier: Frontier, config: CrawlConfig, console: Console) -> None:
    waiting = frontier.count("queued")
    if waiting:
        console.warn(f"stopped at max_pages={config.max_pages} with {waiting:,} addresses waiting; raise it to go on")


def _nothing(build: Build, config: CrawlConfig, done: Done) -> None:
    """Zero pages: say why. The next run begins anew, since there is nothing to go on from."""
    shutil.rmtree(build.scratch)
    reasons = [f"{why} ({n:,})" for state, why, n in done.outcomes if state in ("failed", "excluded")][:_SHOWN]
    reasons += [str(d) for d in done.damage[:_SHOWN]]
    what = "no page could be had: " + ("; ".join(reasons) or "the sources are empty")
    raise UserError(what, ", ".join(config.sources[:_SHOWN]), "check the sources")


def _report(build: Build, console: Console, config: CrawlConfig, done: Done) -> None:
    """The figures of the manifest, and warnings with counts."""
    for line in done.damage[:_SHOWN]:
        console.warn(f"damaged: {line}")
    if len(done.damage) > _SHOWN:
        console.warn(f"damaged: {len(done.damage) - _SHOWN:,} more places; the manifest names them")
    left_out = {
        f"{state}: {why}" if why else state: n for state, why, n in done.outcomes if state not in (PAGE, "queued")
    }
    build.figures.update(
        pages=done.pages,
        fetched=done.fetched,
        copied=done.copied,
        page_bytes=done.bytes,
        damaged=len(done.damage),
        damage=[str(d) for d in done.damage[:1000]],
        left_out=left_out,
        headline={"label": "pages", "before": None, "after": done.pages, "unit": ""},
    )
    if done.recrawl:
        build.figures["recrawl"] = done.recrawl
        console.table("since " + config.since, ("pages", "number"), list(done.recrawl.items()))
    build.figures["in"] = config.sources[0] if len(config.sources) == 1 else f"{len(config.sources):,} sources"
    build.figures["out"] = f"{done.pages:,} pages, {_size(done.bytes)}"
    if left_out:
        rows = sorted(left_out.items(), key=lambda item: -item[1])
        console.table("not pages", ("what", "addresses"), rows[:_SHOWN])


def _local_path(source: str, workspace: Workspace) -> Path:
    return workspace.resolve(source, ("pages",), files=True).path


def _size(n: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "bytes" or n >= 100 else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"
