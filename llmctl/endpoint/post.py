"""One POST of JSON: its limits, and what went wrong told apart by whether trying again may help.

Built on httpcore, as the crawler is: one dependency, no redirects (a key must not follow one), every limit in sight.
"""

from __future__ import annotations

import json
import ssl
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

_MOST_BYTES = 16 << 20  # a reply of 100,000 tokens is half a megabyte; more is a server gone wrong
_PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)


class Passing(Exception):
    """A failure that may pass. `after` is how many seconds the server asks to wait, or None."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class Refused(Exception):
    """The server refuses this request, and would again."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"HTTP {status}: {why}" if status else why)
        self.status = status


class Unreachable(Exception):
    """Nobody there to talk to."""


class Poster:
    """POSTs to one address over a pool of connections; several threads may use it."""

    def __init__(self, url: str, key: str, concurrency: int, timeout: float) -> None:
        import httpcore  # not above: settings import this package, and should be read without a network library

        self.url, self.timeout = url, timeout
        self._headers = [("Content-Type", "application/json"), ("Accept", "application/json")]
        if key:
            self._headers.append(("Authorization", f"Bearer {key}"))
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=concurrency,
            max_keepalive_connections=concurrency,
            keepalive_expiry=30.0,
        )

    def post(self, body: dict[str, Any]) -> Any:
        """The JSON of the answer. Passing, Refused or Unreachable where there is none."""
        status, headers, content = self._exchange(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))
        if status in _PASSING:
            raise Passing(f"HTTP {status}: {_reason(content)}", _retry_after(headers))
        if status != 200:
            raise Refused(status, _reason(content))
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise Passing("the answer is not JSON") from None

    def _exchange(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        import httpcore

        deadline = time.monotonic() + self.timeout
        limits = dict.fromkeys(("connect", "read", "write"), self.timeout)
        try:
            with self._pool.stream(
                "POST", self.url, headers=self._headers, content=body, extensions={"timeout": limits}
            ) as answer:
                content = b""
                for chunk in answer.iter_stream():
                    content += chunk
                    if len(content) > _MOST_BYTES:
                        raise Refused(0, f"an answer of over {_MOST_BYTES >> 20} MB")
                    if time.monotonic() > deadline:  # a server that drips bytes never runs into a read timeout
                        raise Passing(f"no whole answer within {self.timeout:g} s")
                headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in answer.headers}
                return answer.status, headers, content
        except httpcore.ConnectError as e:
            raise Unreachable(str(e) or "no connection") from None
        except httpcore.TimeoutException:
            raise Passing(f"no answer within {self.timeout:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as e:
            raise Passing(f"the connection broke: {str(e) or type(e).__name__}") from None


def _reason(content: bytes) -> str:
    """What the server says is wrong, on one line."""
    try:
        found = json.loads(content)
        error = found.get("error", found) if isinstance(found, dict) else found
        parts = [error.get("code"), error.get("message") or error.get("detail")] if isinstance(error, dict) else [error]
        text = " ".join(str(p) for p in parts if p)
    except (ValueError, RecursionError):
        text = content[:300].decode("utf-8", "replace")
    return " ".join(text.split())[:300] or "without a word"


def _retry_after(headers: dict[str, str]) -> float | None:
    """Seconds that the server asks to wait: RFC 9110's header, a number or a date, or the milliseconds of some."""
    milliseconds, value = headers.get("retry-after-ms", "").strip(), headers.get("retry-after", "").strip()
    try:
        if milliseconds:
            return max(0.0, float(milliseconds) / 1000)
        return max(0.0, float(value)) if value else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        return None
