"""One request: its limits, its retries' reasons, and what came back.

Built on httpcore, the transport of httpx: a crawler follows redirects itself (each hop asks robots.txt and the scope
again), and needs the network backend that only httpcore lets one replace in public.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpcore

from llmctl.crawl.config import FetchSettings
from llmctl.crawl.network import GuardedBackend, NoSuchHost, Refused
from llmctl.formats.warc import content_type

Headers = list[tuple[str, str]]

_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)
_TOTAL = 5  # a request may take this many times `timeout` altogether: a server that drips bytes never times out
# Encodings that zlib undoes in bounded steps; brotli and zstd would need more dependencies to save a little traffic.
_ENCODINGS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


@dataclass
class Fetched:
    """What a request gave. `why` is empty where a response came back whole; `passing` says whether to try again."""

    url: str
    date: datetime
    request: Headers = field(default_factory=list)
    status: int = 0
    reason: str = ""
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    address: str = ""
    why: str = ""
    passing: bool = False

    def header(self, name: str) -> str:
        """A response header, or an empty string."""
        return next((v for k, v in self.headers if k.lower() == name), "")

    @property
    def redirects(self) -> bool:
        """True where the answer names another address."""
        return self.status in (301, 302, 303, 307, 308) and bool(self.header("location"))

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait, or None."""
        value = self.header("retry-after").strip()
        if value.isdigit():
            return float(value)
        try:
            return (
                max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds()) if value else None
            )
        except (TypeError, ValueError):
            return None


class _TooLarge(Exception):
    """The body goes over the limit."""


class _Corrupt(Exception):
    """The body does not decompress."""


class Fetcher:
    """Requests over a pool of connections. Use it as an async context manager."""

    def __init__(self, settings: FetchSettings, user_agent: str, concurrency: int, network: GuardedBackend) -> None:
        self._settings, self._user_agent = settings, user_agent
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=concurrency + 4,
            max_keepalive_connections=concurrency,
            keepalive_expiry=30.0,
            network_backend=network,
        )

    async def __aenter__(self) -> Fetcher:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._pool.aclose()

    async def get(
        self,
        url: str,
        types: tuple[str, ...] = (),
        max_bytes: int | None = None,
        conditions: Headers | None = None,
        cut: bool = False,
    ) -> Fetched:
        """GET `url`. `types` are the content types whose bodies are wanted; empty wants any.

        `conditions` are further request headers (If-None-Match, ...). A body over `max_bytes` is a failure, or with
        `cut` is taken up to there.
        """
        parts = urlsplit(url)
        found = Fetched(url, datetime.now(timezone.utc))
        found.request = [
            ("Host", parts.netloc),
            ("User-Agent", self._user_agent),
            ("Accept", ", ".join(types) + ", */*;q=0.1" if types else "*/*"),
            ("Accept-Encoding", "gzip, deflate"),
            *(conditions or []),
        ]
        try:
            await asyncio.wait_for(self._get(found, types, max_bytes or self._settings.max_bytes, cut), self._total)
        except Exception as e:
            found.body = b""
            found.why, found.passing = _explain(e)
            if not found.why:
                raise
        return found if found.why else _judged(found)

    @property
    def _total(self) -> float:
        return self._settings.timeout * _TOTAL

    async def get_range(self, url: str, start: int, end: int | None, sink: Callable[[bytes], None]) -> Fetched:
        """GET the bytes of `url` from `start` up to, not including, `end`, each chunk into `sink` as it comes.

        There is no limit on the whole time, for a file may be large; `timeout` is the longest silence. What has come
        before a cut is in `sink`. `why` says so where the answer is not that range.
        """
        parts, found = urlsplit(url), Fetched(url, datetime.now(timezone.utc))
        wanted = f"bytes={start}-{'' if end is None else end - 1}"
        found.request = [("Host", parts.netloc), ("User-Agent", self._user_agent), ("Range", wanted)]
        found.request += [("Accept", "*/*"), ("Accept-Encoding", "identity")]
        seconds = self._settings.timeout
        limits = {"connect": seconds, "read": seconds, "write": seconds, "pool": None}
        try:
            async with self._pool.stream("GET", url, headers=found.request, extensions={"timeout": limits}) as answer:
                found.status = answer.status
                found.headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in answer.headers]
                if answer.status == 206 and not found.header("content-range").startswith(f"bytes {start}-"):
                    found.why = f"asked for {wanted}, got {found.header('content-range') or 'no Content-Range'}"
                elif answer.status == 206:
                    at = start
                    async for chunk in answer.aiter_stream():
                        at += len(chunk)
                        if end is not None and at > end:
                            found.why = f"asked for {wanted}, got more"
                            break
                        sink(chunk)
        except Exception as e:
            found.why, found.passing = _explain(e)
            if not found.why:
                raise
        return found if found.why or found.status == 206 else _judged(found)

    async def _get(self, found: Fetched, types: tuple[str, ...], max_bytes: int, cut: bool) -> None:
        seconds = self._settings.timeout
        limits = {"connect": seconds, "read": seconds, "write": seconds, "pool": self._total}
        async with self._pool.stream("GET", found.url, headers=found.request, extensions={"timeout": limits}) as answer:
            found.status = answer.status
            found.reason = bytes(answer.extensions.get("reason_phrase", b"")).decode("latin-1")
            found.headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in answer.headers]
            stream = answer.extensions.get("network_stream")
            peer = stream.get_extra_info("server_addr") if stream else None
            found.address = str(peer[0]) if peer else ""
            kind, _ = content_type(found.header("content-type"))
            if 200 <= found.status < 300 and types and kind not in types and kind:
                found.why = f"content type {kind}"
                return
            length = found.header("content-length")
            if length.isdigit() and int(length) > max_bytes and 200 <= found.status < 300 and not cut:
                raise _TooLarge
            found.body = await self._body(answer, found.header("content-encoding").strip().lower(), max_bytes, cut)

    async def _body(self, answer: httpcore.Response, encoding: str, max_bytes: int, cut: bool) -> bytes:
        if encoding not in ("", "identity", *_ENCODINGS):
            raise _Corrupt(encoding)
        inflate = zlib.decompressobj(_ENCODINGS[encoding]) if encoding in _ENCODINGS else None
        body = bytearray()
        raw_deflate = encoding == "deflate"  # some servers send deflate without its zlib header
        async for chunk in answer.aiter_stream():
            room = max_bytes + 1 - len(body)
            if inflate is None:
                body += chunk[:room]
            else:
                try:
                    body += inflate.decompress(chunk, room)
                except zlib.error as e:
                    if not raw_deflate or body:
                        raise _Corrupt(encoding) from e
                    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
                    body += inflate.decompress(chunk, room)
            raw_deflate = raw_deflate and not body
            if len(body) > max_bytes:
                if cut:
                    return bytes(body[:max_bytes])
                raise _TooLarge
        return bytes(body)


def _judged(found: Fetched) -> Fetched:
    """`found` with what its status says of it."""
    if found.status >= 400:
        found.why, found.passing = f"status {found.status}", found.status in _PASSING_STATUS
    return found


def _explain(error: Exception) -> tuple[str, bool]:
    """(reason, whether it may pass) of a failed request; an empty reason for a defect of ours."""
    text = str(error)
    known: list[tuple[type[Exception] | tuple[type[Exception], ...], str, bool]] = [
        (Refused, f"a private address ({text})", False),
        (NoSuchHost, "no such host", False),
        (_TooLarge, "too large", False),
        (_Corrupt, f"content encoding {text}", False),
        ((asyncio.TimeoutError, httpcore.TimeoutException), "timed out", True),
        (httpcore.UnsupportedProtocol, "no http address", False),
        (httpcore.LocalProtocolError, "an address that cannot be asked for", False),
        (httpcore.RemoteProtocolError, f"broken answer: {text.splitlines()[0] if text else 'cut off'}", True),
        (httpcore.NetworkError, f"connection failed: {text}" if text else "connection failed", True),
    ]
    for kinds, why, passing in known:
        if isinstance(error, kinds):
            certificate = "CERTIFICATE_VERIFY_FAILED" in text
            return ("the certificate is not valid", False) if certificate else (why, passing)
    return "", False
