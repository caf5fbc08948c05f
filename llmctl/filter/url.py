"""Pages dropped by their address, with the person's own block lists, by FineWeb's rules.

Where datatrove's filter lets a listed page pass for how its entry is written, this one drops it: hosts are compared
without regard to case, whole addresses without their scheme (none of FineWeb's 19,586 has one, so there they never
match), and an entry may be an IP address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.filter.block_list import block_list
from llmctl.filter.config import FILE_MARK, UrlSettings
from llmctl.filter.row import Row, Rule

_NO_WORD = re.compile(r"[^a-zA-Z0-9]+")
_SCHEME = re.compile(r"^https?://", re.IGNORECASE)
_HOSTS = 1 << 17  # pages come site by site, or from sites that come again: 60 MB at the very most

_NOTHING = (float("nan"),) * 6


class UrlFilter:
    """The scorer. A page without an address passes, as does every page where there are no lists.

    Each value is the number of different entries that fit: 0 or 1, but for the two rules about words.
    """

    name = "url"

    def __init__(self, settings: UrlSettings) -> None:
        self.ignore_case = settings.ignore_case
        self.domains: Collection[str] = block_list(entry.lower().strip(".") for entry in entries(settings.domains))
        self.urls: Collection[str] = block_list(_SCHEME.sub("", entry) for entry in entries(settings.urls))
        self.words, self.soft_words, self.subwords = (
            {_NO_WORD.sub("", entry).lower() for entry in entries(listed)} - {""}
            for listed in (settings.words, settings.soft_words, settings.subwords)
        )
        self._subword = _any_of(self.subwords)
        self.rules = (
            Rule("domain", 0),
            Rule("subdomain", 0),
            Rule("url", 0),
            Rule("hard_blacklisted", 0),
            Rule("soft_blacklisted", settings.soft_word_count - 1),
            Rule("blacklisted_subword", 0),
        )

    def __call__(self, row: Row) -> tuple[float, ...]:
        """Registered domain, host, whole address, words, soft words, words within words."""
        url, details = row.url, row.details
        if not url:
            return _NOTHING
        domain = host = whole = hard = soft = 0
        if self.domains:
            names = registered_domain(url)
            domain, host = names[0] in self.domains, names[1] in self.domains
            if domain:
                details["domain"] = names[0]
            if host:
                details["subdomain"] = names[1]
        if self.urls:
            whole = _SCHEME.sub("", url) in self.urls
            if whole:
                details["url"] = url
        pieces = _NO_WORD.split(url.lower() if self.ignore_case else url)
        if self.words or self.soft_words:
            parts = set(pieces)
            hard = _count(self.words & parts, "hard_blacklisted", details)
            soft = _count(self.soft_words & parts, "soft_blacklisted", details)
        within = self._subword("".join(pieces).lower()) if self._subword else None
        if within:
            details["blacklisted_subword"] = within.group()
        return float(domain), float(host), float(whole), float(hard), float(soft), float(within is not None)


def registered_domain(url: str) -> tuple[str, str]:
    """(registered domain, whole host name) of an address, in lower case, by the public suffix list that tldextract
    brings along: nothing is fetched.

    Whatever tldextract takes for the domain where no suffix is known (`localhost`, an IP address) is the registered
    domain here; nobody lists such names by accident.
    """
    # What stands behind the host does not matter to tldextract, and without it the same host is the same key.
    start = url.find("//")
    stop = url.find("/", start + 2) if start >= 0 else -1
    return _names(url[:stop] if stop >= 0 else url)


@lru_cache(maxsize=_HOSTS)
def _names(url: str) -> tuple[str, str]:
    found = _suffixes()(url)
    domain = f"{found.domain}.{found.suffix}" if found.domain and found.suffix else found.domain
    return domain.lower(), ".".join(p for p in (found.subdomain, found.domain, found.suffix) if p).lower()


@lru_cache(maxsize=1)
def _suffixes() -> Any:
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
            with open(path, encoding="utf-8", errors="replace", newline="\n") as f:
                yield from (entry for line in f if (entry := line.strip()) and line[0] != "#")
        except OSError as e:
            raise UserError(f"cannot read the block list: {e.strerror}", str(path), "check the path") from e


def _any_of(words: Collection[str]) -> Callable[[str], re.Match[str] | None] | None:
    """A function from a text to the match of one of `words` somewhere in it, or None; None where there are no words."""
    # Grouped by their first character, since Python tries every alternative at every place: 3.5 us for FineWeb's 134
    # words in an address, 19 without. Letters and digits only, so nothing needs to be escaped.
    groups = groupby(sorted(words), key=lambda word: word[0])
    pattern = "|".join(f"{first}(?:{'|'.join(word[1:] for word in group)})" for first, group in groups)
    return re.compile(pattern).search if words else None


def _count(found: set[str], rule: str, details: dict[str, str]) -> int:
    if found:
        details[rule] = " ".join(sorted(found))
    return len(found)
