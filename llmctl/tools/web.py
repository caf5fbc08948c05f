"""Web search through an endpoint that a person names: a URL template whose answer is JSON. Off unless it is set.

Works as they are with SearXNG, Brave and others whose JSON has a list of results with a title and a text each. The
model chooses the words of the query and nothing else: they are percent-encoded into the template's one place.
"""

from __future__ import annotations

import html
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from llmctl.errors import UserError

URL, KEY = "LLMCTL_SEARCH_URL", "LLMCTL_SEARCH_KEY"
_PLACE = "{query}"
_LONGEST_QUERY = 300
_BYTES = 1 << 20
_SECONDS = 8.0
_TITLES, _TEXTS = ("title", "name"), ("content", "snippet", "description", "text", "body")
_LISTS = ("results", "items", "organic", "organic_results", "webPages", "web", "value", "data", "hits")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")


class SearchFailed(Exception):
    """The endpoint could not be asked, or its answer not be read."""


class WebSearch:
    """Has `SearchIndex`'s `search`, and asks the endpoint each time."""

    def __init__(self, template: str, key: str = "") -> None:
        where = urlsplit(template)
        if where.scheme not in ("http", "https") or not where.hostname or template.count(_PLACE) != 1:
            raise UserError(
                f"{template!r} is no search URL",
                fix=f"give one such as https://search.example/search?format=json&q={_PLACE}",
            )
        if _PLACE in where.netloc or where.username is not None:
            raise UserError("the host of a search URL is not the model's to choose", template, "put the key in " + KEY)
        self.template, self._key = template, key

    @classmethod
    def from_environment(cls, template: str = "") -> WebSearch | None:
        """The endpoint `template`, else that of LLMCTL_SEARCH_URL, with LLMCTL_SEARCH_KEY as its bearer token; None
        where neither is given.
        """
        template = template or os.environ.get(URL, "")
        return cls(template, os.environ.get(KEY, "")) if template else None

    def search(self, query: str, k: int = 1, limit: int = 600) -> list[tuple[str, str]]:
        """The first `k` (title, text), texts of at most `limit` characters. SearchFailed where there is no answer."""
        words = " ".join(query.split())[:_LONGEST_QUERY].encode("utf-8", "replace")
        if not words or k < 1:
            return []
        try:
            answer = json.loads(self._fetch(self.template.replace(_PLACE, quote(words, safe=""))))
        except urllib.error.HTTPError as e:
            raise SearchFailed(f"the search endpoint answered {e.code}") from e
        except (OSError, ValueError, RecursionError) as e:
            raise SearchFailed(f"the search endpoint gave no answer: {type(e).__name__}") from e
        found = [(_plain(t, 200), _plain(x, limit)) for t, x in _results(answer)]
        return found[:k]

    def _fetch(self, url: str) -> bytes:
        """The whole body. OSError where it is too large or too slow: half of a JSON text is none."""
        request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "llmctl"})
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        deadline, body = time.monotonic() + _SECONDS, b""
        with _OPENER.open(request, timeout=_SECONDS) as response:
            while part := response.read1(1 << 16):
                body += part
                if len(body) > _BYTES or time.monotonic() > deadline:
                    raise OSError("too large or too slow")
        return body


class _StayThere(urllib.request.HTTPRedirectHandler):
    """A person named this endpoint; another one, perhaps inside their network, they did not."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_StayThere())


def _results(answer: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """The (title, text) of the first list of results in the answer, at its top or in one of the usual places."""
    if isinstance(answer, dict):
        inner = next((answer[key] for key in _LISTS if isinstance(answer.get(key), (list, dict))), None)
        if inner is not None and depth < 3:
            yield from _results(inner, depth + 1)
    elif isinstance(answer, list):
        for row in answer[:50]:
            if isinstance(row, dict) and (text := _first(row, _TEXTS)):
                yield _first(row, _TITLES), text


def _first(row: dict[str, Any], keys: tuple[str, ...]) -> str:
    return next((row[key] for key in keys if isinstance(row.get(key), str) and row[key]), "")


def _plain(text: str, limit: int) -> str:
    """Snippets mark the words that matched with tags."""
    return " ".join(html.unescape(_TAG.sub("", text[: 4 * limit])).split())[:limit]
