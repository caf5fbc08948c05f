"""What kind of source a person named."""

from __future__ import annotations

import os
import re
from enum import Enum

from llmctl.crawl import cc_source


class Kind(Enum):
    """Where pages come from."""

    URL = "url"
    LOCAL = "local"
    HUB = "hub"
    COMMON_CRAWL = "cc"
    DEMO = "demo"


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_LIKE_A_HOST = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}(?::\d+)?(?:/.*)?\Z", re.IGNORECASE)


def classify(source: str) -> Kind:
    """The kind of `source`. ValueError, with what to type instead, where it can be none."""
    if source == "demo":
        return Kind.DEMO
    scheme = _SCHEME.match(source)
    name = scheme.group(1).lower() if scheme else ""
    if name in ("http", "https"):
        if not re.match(r"https?://[^/?#\s]", source, re.IGNORECASE):
            raise ValueError(f"{source!r} has no host; write https://example.org/")
        return Kind.URL
    if name == "hf":
        return Kind.HUB
    if name == "cc":
        cc_source.parse(source)
        return Kind.COMMON_CRAWL
    if not source.strip():
        raise ValueError("a source is empty")
    if os.path.exists(os.path.expanduser(source)):  # noqa: PTH110, PTH111 - a name is no path yet
        return Kind.LOCAL
    if len(name) > 1 and source[len(name) + 1 :].startswith("//"):
        raise ValueError(f"{source!r}: {name}:// is not crawled; sources are http, https, files, hf:, cc: and demo")
    if _LIKE_A_HOST.match(source) and os.sep not in source.partition("/")[0]:
        raise ValueError(f"{source!r} is neither a file nor a URL; for the web site write https://{source}")
    return Kind.LOCAL
