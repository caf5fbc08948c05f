"""What a `cc:` source asks of Common Crawl.

    cc:CRAWL?url=PATTERN[&lang=eng][&mime=text/html][&status=200][&limit=N]    single captures, by the URL index
    cc:CRAWL/warc?files=0-3,17      cc:CRAWL/wet?files=0      whole files, by their place in the listing

CRAWL is an id such as `CC-MAIN-2024-10`, or `latest`. A `&` or `%` inside PATTERN is written as %26 or %25.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from llmctl.errors import nearest

LATEST = "latest"
ANY = ("*",)
_FORM = "write cc:CC-MAIN-2024-10?url=*.example.org/*, or cc:CC-MAIN-2024-10/wet?files=0-3"
_CRAWL = re.compile(r"CC-[A-Z0-9-]+\Z")
_KEYS = ("url", "lang", "mime", "status", "limit")


@dataclass(frozen=True)
class Query:
    """Captures whose address matches. An empty `mime` means the content types of a crawl; `ANY` turns a filter off.

    `match` is the index server's word: `exact`, `prefix` (`url` and everything that begins so) or `domain` (the host
    and all below it).
    """

    crawl: str
    url: str
    match: str
    lang: tuple[str, ...] = ANY
    mime: tuple[str, ...] = ()
    status: tuple[str, ...] = ("200",)
    limit: int | None = None

    def filters(self) -> dict[str, re.Pattern[str]]:
        """The fields of the index that are looked at, and what each must match from its beginning."""
        found = {}
        for name, wanted, form in (
            ("status", self.status, r"({})$"),
            ("mime-detected", self.mime, r"({})$"),
            ("languages", self.lang, r"(.*,)?({})(,.*)?$"),
        ):
            if wanted and wanted != ANY:
                found[name] = re.compile(form.format("|".join(map(re.escape, wanted))))
        return found


@dataclass(frozen=True)
class Files:
    """Whole files: `kind` is `warc` or `wet`, `numbers` their places in the crawl's listing, from 0."""

    crawl: str
    kind: str
    numbers: tuple[int, ...]


def parse(source: str) -> Query | Files:
    """The meaning of a `cc:` source. ValueError, with what to type instead, where it has none."""
    what, mark, rest = source.partition(":")[2].partition("?")
    crawl, slash, kind = what.partition("/")
    if crawl != LATEST and not _CRAWL.match(crawl):
        raise ValueError(f"{source!r}: {crawl!r} is no crawl; {_FORM}")
    if not mark:
        raise ValueError(f"{source!r} does not say which pages; {_FORM}")
    pairs = [part.partition("=") for part in rest.split("&")]
    given = {key: unquote(value) for key, _, value in pairs}
    known = ("files",) if slash else _KEYS
    for key in given:
        if key not in known:
            raise ValueError(f"{source!r}: {key!r} is unknown{nearest(key, known)}; there are {', '.join(known)}")
    if slash:
        if kind not in ("warc", "wet"):
            raise ValueError(f"{source!r}: {kind!r} is no kind of file; there are warc and wet")
        return Files(crawl, kind, tuple(sorted(set(_numbers(source, given["files"])))))
    return _query(source, crawl, given)


def _query(source: str, crawl: str, given: dict[str, str]) -> Query:
    pattern = given.get("url", "")
    match, url = "exact", pattern
    if url.startswith("*."):
        match, url = "domain", url[2:].removesuffix("*").removesuffix("/")
    elif url.endswith("*"):
        match, url = "prefix", url[:-1]
    if not url or "*" in url or (match == "domain" and "/" in url):
        fix = "a * stands at the end (example.org/docs/*) or for the hosts below one (*.example.org)"
        raise ValueError(f"{source!r}: {pattern!r} is no URL pattern; {fix}")
    languages = tuple(given.get("lang", "*").split(","))
    for language in languages:
        if languages != ANY and not re.fullmatch("[a-z]{3}", language):
            raise ValueError(f"{source!r}: {language!r} is no language of the index; its codes are ISO 639-3 (eng)")
    limit = given.get("limit", "")
    if limit and not limit.isdigit():
        raise ValueError(f"{source!r}: the limit {limit!r} is no number")
    mime = tuple(filter(None, given.get("mime", "").lower().split(",")))
    status = tuple(given.get("status", "200").split(","))
    return Query(crawl, url, match, languages, mime, status, int(limit) if limit else None)


def _numbers(source: str, text: str) -> Iterator[int]:
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not found or int(found[2] or found[1]) - int(found[1]) not in range(1_000_000):
            raise ValueError(f"{source!r}: {part!r} names no files; write files=0-3,17")
        yield from range(int(found[1]), int(found[2] or found[1]) + 1)
