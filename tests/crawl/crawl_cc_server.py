"""Common Crawl on loopback: the index protocol (pywb's) and the files by ranges, from real WARC files.

Offsets, lengths and digests come from warcio, so that they do not depend on the code under test.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from warcio.archiveiterator import ArchiveIterator

CRAWLS = ("CC-MAIN-2024-22", "CC-MAIN-2024-18", "CC-MAIN-2023-50")
WARCS = (
    "aut__example.warc.gz",
    "chatnoir-resiliparse__warcfile.warc.gz",
    "pywb__iana.warc.gz",
    "whirlwind-python__whirlwind.warc.gz",
)
WETS = ("whirlwind-python__whirlwind.warc.wet.gz",)
PAGE_SIZE = 20  # lines on a page of the index


def place(crawl: str, kind: str, name: str) -> str:
    return f"crawl-data/{crawl}/segments/1/{kind}/{name}"


def cdx_rows(path: Path, filename: str) -> list[dict[str, str]]:
    """A CDXJ row for each response of an archive."""
    rows = []
    with open(path, "rb") as f:
        archive = ArchiveIterator(f)
        for record in archive:
            stored = record.raw_stream.read()
            end = archive.get_record_offset() + archive.get_record_length()
            if record.rec_type != "response" or not record.http_headers:
                continue
            head = record.rec_headers.get_header
            url, kind = head("WARC-Target-URI"), record.http_headers.get_header("Content-Type") or ""
            rows.append(
                {
                    "urlkey": urlkey(url),
                    "timestamp": re.sub(r"\D", "", head("WARC-Date"))[:14],
                    "url": url,
                    "mime": kind.partition(";")[0],
                    "mime-detected": kind.partition(";")[0],
                    "status": record.http_headers.get_statuscode(),
                    "digest": base64.b32encode(hashlib.sha1(stored).digest()).decode(),
                    "length": str(end - archive.get_record_offset()),
                    "offset": str(archive.get_record_offset()),
                    "filename": filename,
                    "languages": "fra,eng" if len(url) % 2 else "eng",
                }
            )
    return rows


def urlkey(url: str) -> str:
    """`com,example)/path`, as SURT has it."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    host = (parts.hostname or "").removeprefix("www.")
    return ",".join(reversed(host.split("."))) + ")" + (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


class CommonCrawl:
    """`asked` counts requests by path (data) or query (index); `fault(path, range)` may answer in place of the data."""

    def __init__(self, folder: Path) -> None:
        self.files = {place(CRAWLS[0], "warc", n): (folder / n).read_bytes() for n in WARCS}
        self.rows = [r for n in WARCS for r in cdx_rows(folder / n, place(CRAWLS[0], "warc", n))]
        self.files |= {place(CRAWLS[0], "wet", n): (folder / n).read_bytes() for n in WETS}
        for kind, names in (("warc", WARCS), ("wet", WETS)):
            listing = "".join(place(CRAWLS[0], kind, n) + "\n" for n in names)
            self.files[f"crawl-data/{CRAWLS[0]}/{kind}.paths.gz"] = gzip.compress(listing.encode())
        self.rows.sort(key=lambda r: (r["urlkey"], r["timestamp"]))
        self.asked: Counter[str] = Counter()
        self.heads: list[dict[str, str]] = []
        self.times: list[tuple[str, float]] = []
        self.fault: Callable[[str, str], tuple[Any, ...] | None] = lambda path, range: None
        self.busy = self.most_at_once = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"service": self})
        self.server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def index(self, crawl: str, query: dict[str, str], filters: list[str]) -> tuple[int, bytes]:
        """An answer of the CDX server."""
        if crawl != CRAWLS[0]:
            return (404, b"<html>Not Found</html>")
        host, key = urlkey(query["url"]).partition(")")[0], urlkey(query["url"])
        match = {
            "exact": lambda k: k == key,
            "prefix": lambda k: k.startswith(key),
            "domain": lambda k: k.startswith((host + ")", host + ",")),
        }[query["matchType"]]
        rows = [r for r in self.rows if match(r["urlkey"])]
        pages = -(-len(rows) // PAGE_SIZE)
        if query.get("showNumPages") == "true":
            return 200, json.dumps({"pages": pages, "pageSize": 5, "blocks": pages}).encode()
        page = int(query["page"])
        if page >= pages:
            return 400, json.dumps({"message": f"Page {page} invalid"}).encode()
        rows = rows[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
        for filter in filters:
            name, _, pattern = filter.removeprefix("~").partition(":")
            assert filter.startswith("~")
            rows = [r for r in rows if re.match(pattern, r.get(name, ""))]
        if not rows:
            return 404, json.dumps({"message": "No Captures found for: " + query["url"]}).encode()
        return 200, "".join(json.dumps(r) + "\n" for r in rows).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: CommonCrawl

    def do_GET(self) -> None:
        service, path = self.service, urlsplit(self.path).path.lstrip("/")
        wanted = self.headers.get("Range", "")
        with service.lock:
            service.asked[self.path.lstrip("/") + (f" {wanted}" if wanted else "")] += 1
            service.heads.append(dict(self.headers))
            service.times.append((path, time.monotonic()))
            service.busy += 1
            service.most_at_once = max(service.most_at_once, service.busy)
        try:
            self._answer(service, path, wanted)
        finally:
            with service.lock:
                service.busy -= 1

    def _answer(self, service: CommonCrawl, path: str, wanted: str) -> None:
        fault = service.fault(path, wanted)
        if fault and fault[0] == "status":
            self._send(fault[1], b"Please reduce your request rate.", *fault[2:])
        elif path == "collinfo.json":
            self._send(200, json.dumps([{"id": c, "cdx-api": f"x/{c}-index"} for c in CRAWLS]).encode())
        elif path.endswith("-index"):
            query = parse_qs(urlsplit(self.path).query)
            one = {k: v[0] for k, v in query.items()}
            self._send(*service.index(path.removesuffix("-index"), one, query.get("filter", [])))
        elif path in service.files:
            self._file(service.files[path], wanted, fault)
        else:
            self._send(404, b"NoSuchKey")

    def _file(self, data: bytes, wanted: str, fault: tuple[Any, ...] | None) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if not found or (fault and fault[0] == "whole"):
            self._send(200, data)
            return
        start = int(found[1])
        end = min(int(found[2]) + 1 if found[2] else len(data), len(data))
        if start >= len(data):
            self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        if fault and fault[0] == "shift":
            start, end = start + 7, end + 7
        body = data[start:end]
        if fault and fault[0] == "damage":
            body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 0x55]) + body[len(body) // 2 + 1 :]
        if fault and fault[0] == "short":
            body = body[:-9]
        cut = fault[1] if fault and fault[0] == "cut" else len(body)
        self._send(206, body, {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}, cut)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = cut is not None and cut < len(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
