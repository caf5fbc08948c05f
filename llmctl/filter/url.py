"""Pages dropped by their address, with the person's own block lists, by FineWeb's rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.filter.config import FILE_MARK, UrlSettings
from llmctl.filter.row import Check, Row

_NO_WORD = re.compile(r"[^a-zA-Z0-9]+")
_SCHEME = re.compile(r"^https?://", re.IGNORECASE)


class UrlFilter:
    """The step. A page without an address passes, as does every page where there are no lists."""

    name = "url"

    def __init__(self, settings: UrlSettings) -> None:
        self.settings = settings
        self.domains = {entry.lower().strip(".") for entry in entries(settings.domains)}
        self.urls = {_SCHEME.sub("", entry) for entry in entries(settings.urls)}
        self.words, self.soft_words, subwords = (
            {_NO_WORD.sub("", entry).lower() for entry in entries(listed)} - {""}
            for listed in (settings.words, settings.soft_words, settings.subwords)
        )
        self.subwords = sorted(subwords)

    def __call__(self, row: Row) -> Iterator[Check]:
        """Domain, host, whole address, words, soft words, words within words."""
        if not row.url:
            return
        if self.domains:
            domain, host = self._names(row.url)
            yield _listed("domain", domain in self.domains, domain)
            yield _listed("subdomain", host in self.domains, host)
        yield _listed("url", _SCHEME.sub("", row.url) in self.urls, row.url)
        parts = set(_NO_WORD.split(row.url.lower() if self.settings.ignore_case else row.url))
        hard, soft = sorted(self.words & parts), sorted(self.soft_words & parts)
        yield _listed("hard_blacklisted", bool(hard), " ".join(hard))
        most = self.settings.soft_word_count
        yield Check("soft_blacklisted", len(soft) >= most, float(len(soft)), float(most), " ".join(soft))
        joined = _NO_WORD.sub("", row.url).lower()
        within = next((word for word in self.subwords if word in joined), "")
        yield _listed("blacklisted_subword", bool(within), within)

    def _names(self, url: str) -> tuple[str, str]:
        """(registered domain, host), by the public suffix list that tldextract brings along: nothing is fetched."""
        found = self._suffixes(url)
        domain = f"{found.domain}.{found.suffix}" if found.domain and found.suffix else found.domain
        return domain.lower(), ".".join(p for p in (found.subdomain, found.domain, found.suffix) if p).lower()

    @cached_property
    def _suffixes(self) -> Any:
        import tldextract

        return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def entries(listed: list[str]) -> Iterator[str]:
    """The entries of a list, those of its files among them. UserError names a file that cannot be read."""
    for entry in listed:
        if not entry.startswith(FILE_MARK):
            yield entry
            continue
        path = Path(entry[len(FILE_MARK) :]).expanduser()
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError as e:
            raise UserError(f"cannot read the block list: {e.strerror}", str(path), "check the path") from e
        yield from (line.strip() for line in lines if line.strip() and not line.startswith("#"))


def _listed(rule: str, failed: bool, entry: str) -> Check:
    return Check(rule, failed, float(failed), None, entry if failed else "")
