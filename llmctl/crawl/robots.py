"""robots.txt by RFC 9309, one an origin, kept for a day.

Not there (4xx): everything may be fetched. Not reachable (5xx, no connection): nothing may. Redirects are followed up
to five times, also to other hosts; of a large file the first 500 KiB count.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

from protego import Protego

from llmctl.crawl.fetch import Fetcher
from llmctl.crawl.urls import canonical
from llmctl.formats.charset import decode

MAX_BYTES = 500 * 1024
MAX_AGE = 24 * 3600.0
_REDIRECTS = 5
# A site that asks for longer is asked once in this many seconds; some name days by mistake.
_LONGEST_DELAY = 300.0
# RFC 9309 matches product tokens: `FooBot/1.2 (by Foo)` means FooBot. protego would look for the whole line.
_TOKEN = re.compile(r"((?:^|[\r\n])[ \t]*user-agent[ \t]*:[ \t]*[^\s/#*]+)[ \t/][^\r\n#]*", re.IGNORECASE)


@dataclass
class Robots:
    """The rules of one origin. `why` names the reason where nothing may be fetched at all."""

    text: str = ""
    why: str = ""
    fetched: float = 0.0

    def __post_init__(self) -> None:
        self._rules = Protego.parse(_TOKEN.sub(r"\1", self.text.lstrip("\ufeff")))

    @property
    def stale(self) -> bool:
        """True when it must be fetched again."""
        return time.time() - self.fetched > MAX_AGE

    def refusal(self, url: str, agent: str) -> str:
        """Why `url` may not be fetched; empty where it may."""
        if self.why:
            return self.why
        return "" if self._rules.can_fetch(url, agent) else "robots.txt"

    def delay(self, agent: str) -> float:
        """Seconds between two requests that the site asks for; 0 where it does not say."""
        asked = [float(self._rules.crawl_delay(agent) or 0.0)]
        if rate := self._rules.request_rate(agent):
            asked.append(rate.seconds / max(1, rate.requests))
        return min(max(asked), _LONGEST_DELAY)

    @property
    def sitemaps(self) -> list[str]:
        """The sitemaps it names."""
        return list(self._rules.sitemaps)


async def fetch_robots(fetcher: Fetcher, origin: str, retries: int, backoff: float) -> Robots:
    """Ask `origin` for its robots.txt."""
    url, hops, tries = f"{origin}/robots.txt", 0, 0
    while True:
        got = await fetcher.get(url, max_bytes=MAX_BYTES, cut=True)
        if got.passing and tries < retries:
            tries += 1
            await asyncio.sleep(min(got.retry_after or backoff * 2 ** (tries - 1), 60.0))
            continue
        target = canonical(got.header("location"), url) if got.redirects else None
        if target and hops < _REDIRECTS:
            url, hops = target, hops + 1
            continue
        return _judge(got.status, got.why, got.passing, got.body)


def _judge(status: int, why: str, passing: bool, body: bytes) -> Robots:
    now = time.time()
    if 200 <= status < 300 and not why:
        return Robots(decode(body), fetched=now)
    if 300 <= status < 500 and not passing:
        return Robots(fetched=now)  # unavailable: RFC 9309, 2.3.1.3
    if status >= 400:
        return Robots(why=f"robots.txt: {why}", fetched=now)  # unreachable: RFC 9309, 2.3.1.4
    return Robots(why=why, fetched=now)
