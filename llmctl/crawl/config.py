"""The settings of `llmctl crawl`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from llmctl.crawl.sources import Kind, classify
from llmctl.recipe import InputOf, NoResult, Settings, StageSettings


class ScopeSettings(Settings):
    """Which of the addresses found are followed."""

    hosts: list[str] = []
    """Hosts to stay on. Empty means the hosts of the sources, with and without `www.`. `*.example.org` takes every
    host below it, `*` takes the whole web."""
    include: list[str] = []
    """Regular expressions; where there are any, an address must match one of them (anywhere in it). The sources
    themselves are always fetched."""
    exclude: list[str] = []
    """Regular expressions; an address that matches one of them (anywhere in it) is not fetched."""
    depth: Annotated[int, Field(ge=0)] = 10
    """How many links away from a source a page may be. 0 fetches the given addresses and nothing else; deep pages are
    reached late anyway, because a crawl goes breadth first."""
    sitemaps: bool = True
    """Read the sitemaps that robots.txt names. They reach pages that no link leads to."""
    max_queries: Annotated[int, Field(ge=0)] = 100
    """How many addresses are followed that differ only in their query string, in a date at the end of the path, or in
    a session id inside it. Calendars and sort orders have no end without it."""
    strip_params: list[str] = ["utm_*", "gclid", "fbclid", "PHPSESSID", "jsessionid", "sessionid"]
    """Query parameters that do not change the page; they are cut off, so that it is fetched once."""


class PolitenessSettings(Settings):
    """How gently a host is asked. Scrapy's defaults (no delay, 8 at a time) are what gets crawlers blocked."""

    user_agent: str = "llmctl"
    """The name that robots.txt rules are looked up by, and the first word of the User-Agent header."""
    contact: str = ""
    """An address (e-mail or URL) that is shown to the sites in the User-Agent header, so that they can reach you."""
    robots: bool = True
    """Obey robots.txt (RFC 9309). Turn it off only for your own site."""
    delay: Annotated[float, Field(ge=0)] = 1.0
    """Seconds between two requests to one host. A longer Crawl-delay in robots.txt is obeyed."""
    per_host: Annotated[int, Field(ge=1)] = 1
    """Requests at a time to one host."""
    private_hosts: list[str] = []
    """Hosts that may resolve to private, loopback or link-local addresses. Everything else that does is refused, also
    after a redirect, except where a source itself names such an address (`http://127.0.0.1:8000/`, `localhost`)."""


class FetchSettings(Settings):
    """The limits of a single request."""

    timeout: Annotated[float, Field(gt=0)] = 20.0
    """Seconds to connect, and to wait for the next bytes. Five times as long and the request is given up altogether."""
    max_bytes: Annotated[int, Field(ge=1)] = 10_000_000
    """The largest page, in bytes after decompression; a larger one is left out. HTML beyond a few megabytes is data
    dumps, and extraction takes seconds on it."""
    retries: Annotated[int, Field(ge=0)] = 3
    """How often a request that failed for a passing reason (timeout, 429, 5xx) is tried again."""
    backoff: Annotated[float, Field(ge=0)] = 2.0
    """Seconds before the first retry; doubled with each further one. A Retry-After of the server is obeyed."""
    redirects: Annotated[int, Field(ge=0)] = 5
    """How many redirects in a row are followed. RFC 9309 asks for five."""
    content_types: list[str] = ["text/html", "application/xhtml+xml", "text/plain"]
    """What is kept; the body of anything else is not downloaded."""


class CommonCrawlSettings(Settings):
    """Where Common Crawl is, and how patiently it is asked. `politeness` says who asks."""

    index: Annotated[str, NoResult()] = "https://index.commoncrawl.org"
    """The address of the URL index (pywb's CDX server API). Your own index server spares the public one, which is
    small; if this names a private address, that address may be asked."""
    data: Annotated[str, NoResult()] = "https://data.commoncrawl.org"
    """The address under which the crawls' files are. A mirror near you is faster; a private address as above."""
    connections: Annotated[int, NoResult(), Field(ge=1)] = 2
    """Requests at a time for single captures. The index and whole files are asked for one thing at a time. Many
    connections earn a 503, and then a ban."""
    retries: Annotated[int, NoResult(), Field(ge=0)] = 8
    """How often a request is made again after 503, 429, another passing failure or a cut connection, each time after
    twice as long a pause (`fetch.backoff`, two minutes at most) or after the server's Retry-After."""


class CrawlConfig(StageSettings):
    """From URLs, archives or folders to pages."""

    stage: ClassVar[str] = "crawl"
    makes: ClassVar[str] = "pages"

    source: str | list[str]
    """Where pages come from: URLs, WARC files, folders or files of HTML, text, JSON Lines or Parquet, `hf:org/name`,
    `cc:CRAWL-ID?url=PATTERN`, or `demo` (the documentation of the running Python, served on this machine)."""
    out: str = "pages"
    """The name of the pages to make."""
    since: Annotated[str, InputOf(("pages",))] = ""
    """Pages of an earlier crawl. A page that is there is asked for with If-None-Match and If-Modified-Since, and taken
    from there where it has not changed: a re-crawl costs a request a page and hardly any traffic."""
    max_pages: Annotated[int, Field(ge=1)] = 1000
    """When to stop a live crawl. The limit is never smaller than the number of addresses given."""
    concurrency: Annotated[int, NoResult(), Field(ge=1)] = 16
    """Requests at a time, over all hosts. More than a few dozen only helps on very many hosts."""
    scope: ScopeSettings = ScopeSettings()
    """Which of the addresses found are followed."""
    politeness: PolitenessSettings = PolitenessSettings()
    """How gently a host is asked."""
    fetch: FetchSettings = FetchSettings()
    """The limits of a single request."""
    common_crawl: CommonCrawlSettings = CommonCrawlSettings()
    """Where Common Crawl is, and how patiently it is asked."""
    strict: bool = False
    """Stop at the first damaged place of an archive or file. Otherwise it is named, counted and passed over."""
    segment_bytes: Annotated[int, Field(ge=1)] = 1_000_000_000
    """The size at which a new WARC file is begun; Common Crawl's files are about this large."""

    @field_validator("source")
    @classmethod
    def _known_sources(cls, value: str | list[str]) -> list[str]:
        """One source and a list of one are the same settings."""
        found = [value] if isinstance(value, str) else list(value)
        if not found:
            raise ValueError("nothing to crawl; give a URL, a file, a folder, or demo")
        for source in found:
            classify(source)
        return found

    @property
    def sources(self) -> list[str]:
        """The sources as a list."""
        assert not isinstance(self.source, str), "the validator makes a list of it"
        return self.source

    def inputs(self) -> list[tuple[str, Sequence[str], bool]]:
        """The files and folders among the sources, and `since`: what they hold decides whether pages are up to date."""
        local = [(s, ("pages",), True) for s in self.sources if classify(s) in (Kind.LOCAL, Kind.HUB)]
        return [*local, *super().inputs()]
