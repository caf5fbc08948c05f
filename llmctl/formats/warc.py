"""WARC, WET and ARC, compressed or not, read to the last whole record.

warcio parses the records. Around it stands what it leaves out: a gzip member that is cut or corrupt ends there, is
named, and reading goes on at the next member; in a plain file at the next line that begins a record. warcio alone
prints such damage to stderr and hands on half a record as if it were whole.
"""

from __future__ import annotations

import io
import logging
import mmap
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from warcio.bufferedreaders import BufferedReader as _Inflating
from warcio.bufferedreaders import ChunkedDataReader
from warcio.exceptions import ArchiveLoadFailed
from warcio.recordloader import ArcWarcRecordLoader
from warcio.statusandheaders import StatusAndHeaders, StatusAndHeadersParserException

from llmctl.formats.charset import decode
from llmctl.formats.document import DamageList, Document

HTML_TYPES = ("text/html", "application/xhtml+xml")
TEXT_TYPES = ("text/plain",)
logging.getLogger("warcio").addHandler(logging.NullHandler())  # what is wrong is told here, not on stderr
# A record larger than this is named and left out: nothing that is text comes near it, and it must fit into memory.
MAX_RECORD = 256 << 20
# A page may not unfold to more than this (a gzip bomb is 1000 times its size).
MAX_PAYLOAD = 64 << 20
_CHUNK = 1 << 16
_SMALL = 1 << 20  # records up to this size are read in one step
_GZIP = b"\x1f\x8b\x08"
_LOOKS_HTML = re.compile(
    rb"^\s*(?:<!--.{0,500}?-->\s*|<\?xml[^>]{0,200}>\s*)?<(?:!doctype html|html|head|body)\b", re.I | re.S
)
_ROBOTS = re.compile(r"<?https?://[^/?#]*/robots\.txt(?:[?#>]|\Z)", re.I)
_DUMP = re.compile(r"CC-MAIN-\d{4}-\d{2}")


@dataclass
class Record:
    """One whole record: its WARC headers and its block, byte for byte.

    `version` is its first line (`WARC/1.1`), empty in an ARC file. `offset` is where its gzip member begins, or the
    record in a plain file. `end` is where the member ends that holds this record and no other, or None.
    """

    headers: Any
    block: bytes
    offset: int
    version: str = ""
    end: int | None = None

    @property
    def type(self) -> str:
        """`response`, `request`, `resource`, `conversion`, `warcinfo`, ..."""
        return self.headers.get_header("WARC-Type") or ""

    @property
    def url(self) -> str:
        """The address the record is about; empty for `warcinfo`."""
        return self.headers.get_header("WARC-Target-URI") or ""

    def header(self, name: str) -> str:
        """A WARC header, or an empty string."""
        return self.headers.get_header(name) or ""


def read_warc(path: Path, name: str, damage: DamageList) -> Iterator[Document]:
    """The pages and texts of one archive: successful HTML and plain-text responses, resources and conversions."""
    dump = (_DUMP.search(str(path)) or [""])[0]
    for record in records(path, name, damage):
        if record.type == "warcinfo":
            dump = (_DUMP.search(record.block.decode("utf-8", "replace")) or [dump])[0]
            continue
        document = _document(record, name)
        if document is not None:
            document.dump = dump
            yield document


def records(path: Path, name: str, damage: DamageList, start: int = 0) -> Iterator[Record]:
    """Every whole record of an archive from byte `start` on. Damaged ones are named in `damage` and left out."""
    if path.stat().st_size == 0:
        damage.add(name, "", "the file is empty")
        return
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:5] != b"WARC/" and _next_member(data, 0) < len(data):
            yield from _compressed(data, start, name, damage)
        else:
            yield from _plain(f, data, start, name, damage)


class _Member(io.RawIOBase):
    """One gzip member as a stream. After reading: `end` is where the next member begins, `fault` what was wrong."""

    def __init__(self, data: mmap.mmap | bytes, start: int) -> None:
        self._data, self._at = data, start
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self.end: int | None = None
        self.fault = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self.end is None and not self.fault:
            raw = self._inflate.unconsumed_tail
            if not raw:
                raw = self._data[self._at : self._at + _CHUNK]
                self._at += len(raw)
            if not raw:
                self.fault = "the file ends in the middle of a record"
                break
            try:
                out = self._inflate.decompress(raw, len(buffer))
            except zlib.error:
                self.fault = "the compressed data is corrupt"
                break
            if self._inflate.eof:
                self.end = self._at - len(self._inflate.unused_data)
            if out:
                buffer[: len(out)] = out
                return len(out)
        return 0


def member_end(path: Path, start: int) -> int:
    """The byte behind the gzip member that begins at `start`."""
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    with open(path, "rb") as f:
        f.seek(start)
        while not inflate.eof and (chunk := f.read(_CHUNK)):
            inflate.decompress(chunk)
        return f.tell() - len(inflate.unused_data)


class _Fault(Exception):
    """Where an archive stops making sense: `at` is the offset of the record that is wrong."""

    def __init__(self, at: int, what: str) -> None:
        self.at, self.what = at, what
        super().__init__(what)


def _compressed(data: mmap.mmap, start: int, name: str, damage: DamageList) -> Iterator[Record]:
    while start < len(data):
        if (plain := _plain_member(data, start)) is not None:
            yield plain
            assert plain.end is not None
            start = plain.end
            continue
        member = _Member(data, start)
        stream = io.BufferedReader(member, _CHUNK)
        fault, held, alone = "", None, True
        try:
            for record in _parse(stream, start, None):
                if held is not None:
                    yield held
                held, alone = record, held is None
        except _Fault as f:
            fault = f.what
        while stream.read(_CHUNK):  # to the end of the member, where the next one begins
            pass
        if held is not None and not member.fault:  # the checksum behind the last record holds
            held.end = member.end if alone and not fault else None
            yield held
        if member.fault or fault:
            damage.add(name, f"byte {start:,}", member.fault or fault)
        start = _next_member(data, start + 1) if member.end is None else member.end


def _plain_member(data: mmap.mmap, start: int) -> Record | None:
    """The record of a small gzip member that is as the standard has it, at once; None leaves it to the careful reader.

    Nearly every record of a crawl is read here; four fifths of the time is zlib's.
    """
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        head, _, rest = inflate.decompress(data[start : start + _CHUNK], _SMALL).partition(b"\r\n\r\n")
        version, *lines = head.decode("utf-8").split("\r\n")
    except (zlib.error, UnicodeDecodeError):
        return None
    if not inflate.eof or not version.startswith("WARC/") or not rest.endswith(b"\r\n\r\n"):
        return None
    headers, lengths = [], []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.isascii() or " " in name or "\t" in name:  # folded, or odd
            return None
        headers.append((name, value.strip(" \t")))
        if name.lower() == "content-length":
            lengths.append(value.strip(" \t"))
    if lengths != [str(len(rest) - 4)]:
        return None
    end = min(start + _CHUNK, len(data)) - len(inflate.unused_data)
    return Record(StatusAndHeaders("", headers, protocol=version), rest[:-4], start, version, end)


def one_record(data: bytes) -> Record:
    """The record of a gzip member that holds one and nothing else. ValueError says what is wrong with it."""
    member = _Member(data, 0)
    stream = io.BufferedReader(member, _CHUNK)
    try:
        found = list(_parse(stream, 0, None))
    except _Fault as f:
        raise ValueError(member.fault or f.what) from None
    if member.fault or len(found) != 1 or member.end != len(data):
        raise ValueError(member.fault or "it is not one record")
    found[0].end = member.end
    return found[0]


def _next_member(data: mmap.mmap, at: int) -> int:
    """Where the next gzip member that holds a record begins, or the end of the file."""
    while (at := data.find(_GZIP, at)) >= 0:
        try:
            head = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data[at : at + _CHUNK], 8)
        except zlib.error:
            head = b""
        if head.startswith((b"WARC/", b"http", b"filedesc")):
            return at
        at += 1
    return len(data)


def _plain(file: BinaryIO, data: mmap.mmap, start: int, name: str, damage: DamageList) -> Iterator[Record]:
    while start < len(data):
        file.seek(start)
        try:
            yield from _parse(file, start, file.tell)
            return
        except _Fault as fault:
            damage.add(name, f"byte {fault.at:,}", fault.what)
            behind = data.find(b"\nWARC/", fault.at + 1)
            start = behind + 1 if behind >= 0 else len(data)


def _parse(stream: Any, start: int, tell: Callable[[], int] | None) -> Iterator[Record]:
    """The records of one stream; `_Fault` at the first that is not whole. `tell` is None inside a gzip member."""
    loader = ArcWarcRecordLoader(arc2warc=True)
    at, line, _ = _next_line(stream, tell, start)
    while line:
        try:
            found = loader.parse_record_stream(stream, statusline=line, no_record_parse=True)
        except (ArchiveLoadFailed, StatusAndHeadersParserException, EOFError):
            raise _Fault(at, "no record begins here") from None
        block = _block(found, at)
        here, following, closed = _next_line(stream, tell, start)
        # An ARC record may be followed by the next without a blank line between.
        if line.startswith(b"WARC/") and not closed and not b"WARC/".startswith(following[:5]):
            raise _Fault(at, "the record does not end where its Content-Length says")
        version = line.strip().decode("latin-1") if found.format == "warc" else ""
        yield Record(found.rec_headers, block, at, version)
        at, line = here, following


def _block(found: Any, at: int) -> bytes:
    stated = found.rec_headers.get_header("Content-Length") or ""
    if not stated.strip().isdigit():
        raise _Fault(at, f"Content-Length is {stated!r}")
    if found.length > MAX_RECORD:
        raise _Fault(at, f"a record of {found.length:,} bytes; {MAX_RECORD:,} is the most that is read")
    block = found.raw_stream.read(found.length) if found.length else b""
    if len(block) < found.length:
        raise _Fault(at, f"the record ends after {len(block):,} of {found.length:,} bytes")
    return block


def _next_line(stream: Any, tell: Callable[[], int] | None, start: int) -> tuple[int, bytes, bool]:
    """The next line that is not blank, where it begins, and whether a record's two line ends stood before it."""
    blank = b""
    while True:
        at = tell() if tell else start
        line = stream.readline(_CHUNK)
        if not line or line.strip():
            return at, line, blank.startswith(b"\r\n\r\n")
        blank += line[: 4 - len(blank)]


def http_response(record: Record) -> tuple[int, Any, bytes] | None:
    """(status, headers, payload) of a `response` record, unchunked and uncompressed; None where it holds no HTTP."""
    stream = io.BytesIO(record.block)
    try:
        headers = ArcWarcRecordLoader(verify_http=False).load_http_headers(
            "response", record.url, stream, len(record.block)
        )
        status = int(headers.get_statuscode()) if headers else 0
    except (EOFError, ValueError, StatusAndHeadersParserException):
        return None
    if headers is None:
        return None
    encoding = (headers.get_header("Content-Encoding") or "").strip().lower()
    brotli, encoding = encoding == "br", encoding.replace("br", "")
    inflate = encoding if encoding in _Inflating.get_supported_decompressors() else None
    body: Any = stream
    if (headers.get_header("Transfer-Encoding") or "").strip().lower() == "chunked":
        body = ChunkedDataReader(stream, decomp_type=inflate)
    elif inflate:
        body = _Inflating(stream, decomp_type=inflate)
    payload = body.read(MAX_PAYLOAD)
    return status, headers, _unbrotli(payload) if brotli else payload


def _unbrotli(data: bytes) -> bytes:
    """What brotli packed, up to the limit; `data` itself where it is not packed; nothing where brotli is not installed.

    warcio's own way fails with brotli 1.2, and has no limit.
    """
    try:
        import brotli  # type: ignore[import-untyped]
    except ImportError:
        return b""
    try:
        return bytes(brotli.Decompressor().process(data, output_buffer_limit=MAX_PAYLOAD))
    except (brotli.error, TypeError):
        return data


def payload(record: Record) -> bytes:
    """What the payload digest of a record is over: the block, without the head of an HTTP message."""
    if not record.header("Content-Type").replace(" ", "").lower().startswith("application/http"):
        return record.block
    ends = [end + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if (end := record.block.find(mark)) >= 0]
    return record.block[min(ends) :] if ends else b""


def is_page(record: Record) -> bool:
    """True where `read_warc` gives a document for the record."""
    return _document(record, "") is not None


def _document(record: Record, name: str) -> Document | None:
    if record.type == "response":
        answer = http_response(record)
        if answer is None:
            return None
        status, headers, payload = answer
        if not 200 <= status < 300:
            return None
        stated = headers.get_header("Content-Type") or ""
    elif record.type in ("resource", "conversion"):
        stated, payload = record.header("Content-Type"), record.block
    else:
        return None
    if not payload.strip() or _ROBOTS.match(record.url):
        return None
    return _typed(record, stated, payload, name)


def _typed(record: Record, stated: str, payload: bytes, name: str) -> Document | None:
    """A document of HTML or of plain text, by the stated type, the identified one, or the look of the bytes."""
    kind, charset = content_type(stated)
    kind = record.header("WARC-Identified-Payload-Type").strip().lower() or kind
    if kind not in HTML_TYPES and _LOOKS_HTML.match(payload[:1024]):
        kind = "text/html"
    document = Document(
        id=record.header("WARC-Record-ID"),
        url=record.url,
        content_type=kind,
        charset=charset,
        date=record.header("WARC-Date"),
        file_path=name,
    )
    if kind in HTML_TYPES:
        document.html = payload
    elif kind in TEXT_TYPES:
        document.text = decode(payload, charset)
    else:
        return None
    return document


def content_type(header: str) -> tuple[str, str | None]:
    """(`text/html`, `utf-8`) of a Content-Type header; the charset is None where none is named."""
    kind, _, rest = header.partition(";")
    found = re.search(r"charset\s*=\s*[\"']?([^\s;\"',]+)", rest, re.IGNORECASE)
    return kind.strip().lower(), found.group(1) if found else None
