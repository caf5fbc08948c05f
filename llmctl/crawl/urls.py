"""Addresses in one spelling, so that a page is fetched once, and the rules that say which are followed.

The spelling is the one of RFC 3986 section 6 and of the WHATWG URL standard: scheme and host in lower case, no default
port, no user name, no fragment, dot segments resolved, percent-encoding only where it is needed, in upper case.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from llmctl.errors import UserError

MAX_URL = 2000  # longer ones are traps or data; browsers and servers stop near here too
# A path that repeats a segment this often is a relative link gone round in circles (/a/b/a/b/a/b/).
_MAX_REPEATS = 3
_DATE = re.compile(r"/\d{4}[-/]?(?:0?[1-9]|1[0-2])(?:[-/]?\d{1,2})?/?$")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_SESSION = re.compile(rf"/(?:[0-9a-f]{{20,}}|{_UUID}|\((?:[A-Z]\(\w*\))+\))(?=/.)", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_UNRESERVED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_ESCAPE = re.compile(r"%([0-9a-fA-F]{2})")
# What may stand in a path or query as it is; everything else is percent-encoded.
_UNSAFE = re.compile(r"""[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]]""")
_STRAY_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")
_NOT_IN_HOST = re.compile(r"[\x00-\x20#%/:<>?@\[\\\]^|\x7f]")


def canonical(url: str, base: str = "", strip: tuple[str, ...] = ()) -> str | None:
    """`url`, resolved against `base`, in its one spelling; None where it is no http address.

    `strip` names query parameters (with `*`) that are cut off.
    """
    url = re.sub(r"[\t\r\n]", "", url).strip("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f \xa0")
    if re.fullmatch(r"https?:/*", url, re.IGNORECASE) or not (base or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url)):
        return None
    # Browsers take any number of slashes here; without a base, none at all is enough.
    url = re.sub(r"^(https?:)[/\\]{2,}" if base else r"^(https?:)[/\\]*", r"\1//", url, flags=re.IGNORECASE)
    try:
        head, mark, query = url.partition("?")
        url = head.replace("\\", "/") + mark + query  # as browsers read it
        parts = urlsplit(urljoin(base, url) if base else url)
        host, port = _host(parts.hostname or ""), parts.port
    except (ValueError, OSError):
        return None
    if parts.scheme not in _PORTS or not host:
        return None
    netloc = host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"
    path = _dots(_percent(parts.path)) or "/"
    query = "&".join(p for p in _percent(parts.query).split("&") if not _stripped(p, strip)) if parts.query else ""
    path = re.sub(r";jsessionid=[^/;]*", "", path, flags=re.IGNORECASE) if strip else path
    return urlunsplit((parts.scheme, netloc, path, query, ""))


def _host(host: str) -> str:
    """The host in lower case and ASCII; a ValueError where it cannot be one."""
    host = unquote(host, errors="strict").rstrip(".")
    if ":" in host:
        return f"[{host}]"
    if not host.isascii():
        import idna

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:  # emoji, which IDNA 2008 forbids and registries sell
            host = host.encode("idna").decode("ascii")
    if _NOT_IN_HOST.search(host) or len(host) > 253:
        raise ValueError("no host")
    if re.search(r"(?:^|\.)(?:\d+|0x[0-9a-f]*)$", host, re.IGNORECASE):
        host = socket.inet_ntoa(socket.inet_aton(host))  # 0x7f.1 and 2130706433 are 127.0.0.1; an OSError if neither
    return host.lower()


def _percent(text: str) -> str:
    """Percent-encoding where it is needed and only there, in upper case."""

    def plain(match: re.Match[str]) -> str:
        char = chr(int(match.group(1), 16))
        return char if char in _UNRESERVED else f"%{match.group(1).upper()}"

    text = _STRAY_PERCENT.sub("%25", text)
    text = _ESCAPE.sub(plain, text)
    return _UNSAFE.sub(lambda m: "".join(f"%{b:02X}" for b in m.group().encode("utf-8", "surrogatepass")), text)


def _dots(path: str) -> str:
    """`path` without `.` and `..` segments (RFC 3986, 5.2.4). Empty segments stay: they name other resources."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments[1:]:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _stripped(parameter: str, strip: tuple[str, ...]) -> bool:
    name = parameter.partition("=")[0].lower()
    return not parameter or any(fnmatchcase(name, pattern.lower()) for pattern in strip)


def family(url: str) -> str:
    """What `url` has in common with the endlessly many addresses of a trap; empty where it looks like none.

    The path before a query string, in front of a date at the end (calendars), and around a session id (a long
    hexadecimal or ASP.NET segment with more behind it; one at the end is an article's id).
    """
    path, query, _ = url.partition("?")
    general = _DATE.sub("/*", _SESSION.sub("/*", path))
    return general if query or general != path else ""


def origin(url: str) -> str:
    """`scheme://host[:port]`, which is what one robots.txt speaks for."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def site(url: str) -> str:
    """`host[:port]` without `www.`: the same site, whichever way it is written."""
    return urlsplit(url).netloc.removeprefix("www.")


class Scope:
    """Which addresses are followed: their host, their depth, the person's patterns, and the marks of traps."""

    def __init__(self, seeds: list[str], hosts: list[str], include: list[str], exclude: list[str], depth: int) -> None:
        self._sites = {site(s) for s in seeds} if not hosts else {h.lower().removeprefix("www.") for h in hosts}
        self._include = [_compiled(p, "scope.include") for p in include]
        self._exclude = [_compiled(p, "scope.exclude") for p in exclude]
        self._depth = depth
        self.host = lru_cache(maxsize=4096)(self._host)

    def refusal(self, url: str, depth: int) -> str:
        """Why `url` is not followed; empty where it is."""
        if not self.host(urlsplit(url).netloc):
            return "another host"
        if depth > self._depth:
            return "too deep"
        if len(url) > MAX_URL or _circular(url):
            return "a trap"
        if any(p.search(url) for p in self._exclude) or (
            self._include and not any(p.search(url) for p in self._include)
        ):
            return "a pattern"
        return ""

    def _host(self, netloc: str) -> bool:
        bare = netloc.removeprefix("www.")
        return any(fnmatchcase(bare, s) or (s.startswith("*.") and bare == s[2:]) for s in self._sites)


def _circular(url: str) -> bool:
    counts = Counter(s for s in urlsplit(url).path.split("/") if s)
    return bool(counts) and max(counts.values()) > _MAX_REPEATS


def _compiled(pattern: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as e:
        raise UserError(f"{pattern!r} is no regular expression: {e}", key) from e
