"""What a page points to: its links, and the addresses of a sitemap."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from lxml import etree, html  # type: ignore[import-untyped]

from llmctl.formats.charset import decode

MAX_LINKS = 5000  # a page with more is a list made by a machine
_MAX_SITEMAP = 50_000_000  # the limit of sitemaps.org, uncompressed
_LOC = re.compile(rb"<(?:\w+:)?loc>\s*(?:<!\[CDATA\[)?\s*([^<\]\s]+)", re.IGNORECASE)
_INDEX = re.compile(rb"<(?:\w+:)?sitemapindex\b", re.IGNORECASE)


def page_links(data: bytes, charset: str | None, robots_header: str = "") -> tuple[str, list[str]]:
    """(base address or "", links as written) of an HTML page; no links where the page asks not to follow any."""
    if _nofollow(robots_header):
        return "", []
    try:
        tree = html.document_fromstring(decode(data, charset).encode("utf-8"), parser=html.HTMLParser(encoding="utf-8"))
    except (etree.LxmlError, ValueError, RecursionError):
        return "", []
    for meta in tree.iter("meta"):
        if (meta.get("name") or "").lower() == "robots" and _nofollow(meta.get("content") or ""):
            return "", []
    base = next((b.get("href") for b in tree.iter("base") if b.get("href")), "") or ""
    found = dict.fromkeys(href for a in tree.iter("a", "area") if (href := (a.get("href") or "").strip()))
    return base, [h for h in found if not h.startswith(("#", "mailto:", "javascript:", "data:", "tel:"))][:MAX_LINKS]


def _nofollow(value: str) -> bool:
    words = re.split(r"[\s,:]+", value.lower())
    return "nofollow" in words or "none" in words


def sitemap_links(data: bytes) -> Iterator[tuple[str, bool]]:
    """(address, whether it is a sitemap itself) of everything a sitemap lists: XML, plain text, or either in gzip."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, _MAX_SITEMAP)
        except zlib.error:
            return
    if b"<" in data[:1000]:
        index = bool(_INDEX.search(data[:2000]))
        for found in _LOC.finditer(data):
            yield found.group(1).decode("utf-8", "replace").replace("&amp;", "&"), index
    else:
        for line in data.splitlines():
            if line.startswith((b"http://", b"https://")):
                yield line.decode("utf-8", "replace").strip(), False
