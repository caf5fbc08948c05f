"""The pages on disk: WARC 1.1, one gzip member a record, in segments.

Each page is a `response` record followed by its `request`. Bodies are stored unchunked and uncompressed, as Common
Crawl stores them: the header lines that spoke of the transfer are kept under `X-Crawl-` names, so that any reader, also
one without brotli or a dechunker, sees the page. Digests are SHA-1 in base 32, which is what WARC tools expect.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from llmctl import __version__
from llmctl.crawl.fetch import Fetched, Headers
from llmctl.errors import UserError
from llmctl.formats.document import DamageList, Document
from llmctl.formats.warc import Record, member_end, records
from llmctl.workspace.files import fsync_dir

# These describe how a body travelled; the body in the record has arrived.
_TRAVEL = ("content-encoding", "transfer-encoding", "content-length")
EPOCH = "1970-01-01T00:00:00Z"
_PROFILE = "http://netpreserve.org/warc/1.1/revisit/"
_NOT_IN_URI = re.compile(r"[^\x21-\x7e]")


class Archive:
    """WARC segments `NAME-00000.warc.gz` in a folder, written at the end of the last one.

    `position` is (segment, byte) of the end; `date` goes into the record that opens a segment (the epoch by default, so
    that equal pages make equal files). Nothing is on disk before `flush`.
    """

    def __init__(
        self, folder: Path, name: str, segment_bytes: int, position: tuple[int, int] = (0, 0), date: str = EPOCH
    ) -> None:
        self.folder, self.name, self._most, self._date = folder, name, segment_bytes, date
        self._segment, self._at = position
        self._buffer = io.BytesIO()
        self._writer = WARCWriter(self._buffer, gzip=True, warc_version="1.1")

    @property
    def position(self) -> tuple[int, int]:
        """(segment, byte) behind the last record that was flushed."""
        return self._segment, self._at

    def path(self, segment: int) -> Path:
        """The file of a segment."""
        return self.folder / f"{self.name}-{segment:05d}.warc.gz"

    def recover(self) -> list[tuple[Record, bool]]:
        """The responses that a kill kept from being counted: whole ones behind `position`. True marks unchanged ones.

        `position` moves behind the last of them, and what a kill tore is cut off there.
        """
        found: list[tuple[Record, bool]] = []
        segment, start = end = self.position
        while self.path(segment).exists():
            response, unchanged = None, False
            path = self.path(segment)
            for record in records(path, path.name, DamageList(), start):
                if record.type == "response":
                    response, unchanged = record, False
                elif record.type == "revisit":
                    unchanged = True
                elif record.type == "request" and response is not None:
                    found.append((response, unchanged))
                    end, response = (segment, member_end(path, record.offset)), None
            segment, start = segment + 1, 0
        self.cut(*end)
        return found

    def cut(self, segment: int, at: int) -> None:
        """Make (segment, at) the end, and drop what lies behind it."""
        if at:
            os.truncate(self.path(segment), at)
        self._segment, self._at = segment, at
        later = segment + 1 if at else segment
        while self.path(later).exists():
            self.path(later).unlink()
            later += 1

    def add_page(self, page: Fetched) -> None:
        """A response and its request."""
        response = self._writer.create_warc_record(
            page.url,
            "response",
            payload=io.BytesIO(page.body),
            length=len(page.body),
            http_headers=_status_and_headers(page, _headers(page.headers, len(page.body))),
            warc_headers_dict=_about(page),
        )
        self._add_pair(page, response)

    def add_unchanged(self, before: Record, page: Fetched) -> None:
        """A page that has not changed: the response of an earlier crawl, byte for byte, a `revisit`, and its request.

        The response makes these pages whole on their own; the revisit says when and how the server confirmed it.
        """
        self.copy(before)
        asked = page.status == 304
        about = {
            **_about(page),
            "WARC-Profile": _PROFILE + ("server-not-modified" if asked else "identical-payload-digest"),
            "WARC-Refers-To": before.header("WARC-Record-ID"),
            "WARC-Refers-To-Target-URI": before.url,
            "WARC-Refers-To-Date": before.header("WARC-Date"),
        }
        if not asked:
            about["WARC-Payload-Digest"] = digest_of(page.body)
        headers = page.headers if asked else _headers(page.headers, len(page.body))
        revisit = self._writer.create_warc_record(
            page.url, "revisit", http_headers=_status_and_headers(page, headers), warc_headers_dict=about
        )
        self._add_pair(page, revisit)

    def _add_pair(self, page: Fetched, response: Any) -> None:
        """`response` and the request it answers."""
        target = re.sub(r"^[a-z]+://[^/]*", "", page.url) or "/"
        request = self._writer.create_warc_record(
            page.url,
            "request",
            http_headers=StatusAndHeaders(f"GET {target} HTTP/1.1", page.request, is_http_request=True),
        )
        self._writer.write_request_response_pair(request, response)

    def add_document(self, document: Document) -> None:
        """A page or text that comes from no server. The same document gives the same record, byte for byte."""
        text = document.html is None
        body = (document.text or "").encode("utf-8", "replace") if text else document.html
        charset = "utf-8" if text else document.charset
        url = _NOT_IN_URI.sub(lambda m: "".join(f"%{b:02X}" for b in m.group().encode()), document.url)
        about = {
            "WARC-Record-ID": f"<urn:uuid:{uuid5(NAMESPACE_URL, f'{document.file_path}#{document.id}')}>",
            "WARC-Date": document.date or EPOCH,
            "Content-Type": document.content_type + (f"; charset={charset}" if charset else ""),
        }
        record = self._writer.create_warc_record(
            url or f"urn:file:{uuid5(NAMESPACE_URL, document.id)}",
            "resource",
            payload=io.BytesIO(body or b""),
            length=len(body or b""),
            warc_headers_dict=about,
        )
        self._writer.write_record(record)

    def copy(self, record: Record) -> None:
        """A record of another archive: its block byte for byte, its headers as they were, and a block digest."""
        headers = StatusAndHeaders("", list(record.headers.headers), protocol="WARC/1.1")
        headers.replace_header("Content-Length", str(len(record.block)))
        for name, value in (
            ("Content-Type", "application/octet-stream"),
            ("WARC-Block-Digest", digest_of(record.block)),
        ):
            if not headers.get_header(name):
                headers.add_header(name, value)
        # Not by warcio's writer: it gives every record a payload digest, a wrong one where it does not see the payload.
        self._buffer.write(gzip.compress(headers.to_bytes(encoding="utf-8") + record.block + b"\r\n\r\n", mtime=0))

    def add_member(self, member: bytes) -> None:
        """A record as it is in another archive: its gzip member, byte for byte."""
        self._buffer.write(member)

    def flush(self) -> tuple[int, int]:
        """Everything added since the last call, on disk. The new position. UserError where the disk is full."""
        data = self._buffer.getvalue()
        if not data:
            return self.position
        self._buffer.seek(0)
        self._buffer.truncate()
        if self._at >= self._most:
            self._segment, self._at = self._segment + 1, 0
        head = self._warcinfo() if self._at == 0 else b""
        path = self.path(self._segment)
        try:
            with open(path, "r+b" if path.exists() else "xb") as f:
                f.truncate(self._at)
                f.seek(self._at)
                f.write(head + data)
                f.flush()
                os.fsync(f.fileno())
        except OSError as e:
            raise UserError(f"cannot write the pages: {e.strerror}", str(path), "make room, then run it again") from e
        if self._at == 0:
            fsync_dir(self.folder)
        self._at += len(head) + len(data)
        return self.position

    def _warcinfo(self) -> bytes:
        """The record that opens a segment."""
        buffer = io.BytesIO()
        writer = WARCWriter(buffer, gzip=True, warc_version="1.1")
        name = self.path(self._segment).name
        record = writer.create_warcinfo_record(
            name, {"software": f"llmctl/{__version__}", "format": "WARC File Format 1.1"}
        )
        record.rec_headers.replace_header("WARC-Record-ID", f"<urn:uuid:{uuid5(NAMESPACE_URL, name)}>")
        record.rec_headers.replace_header("WARC-Date", self._date)
        writer.write_record(record)
        return buffer.getvalue()


def digest_of(data: bytes) -> str:
    """A digest as WARC headers have it."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode("ascii")


class _Sent(StatusAndHeaders):  # type: ignore[misc]
    """An HTTP head whose bytes are those that were sent: warcio would percent-encode what is not ASCII, or fail."""

    def to_ascii_bytes(self, filter_func: Any = None) -> bytes:
        return bytes(self.to_str(filter_func).encode("latin-1") + b"\r\n")


def _about(page: Fetched) -> dict[str, str]:
    about = {"WARC-Date": page.date.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return {**about, "WARC-IP-Address": page.address} if page.address else about


def _status_and_headers(page: Fetched, headers: Headers) -> _Sent:
    return _Sent(f"{page.status} {page.reason}".strip(), headers, protocol="HTTP/1.1")


def _headers(headers: Headers, length: int) -> list[tuple[str, Any]]:
    kept = [(f"X-Crawl-{k}" if k.lower() in _TRAVEL else k, v) for k, v in headers]
    return [*kept, ("Content-Length", str(length))]
