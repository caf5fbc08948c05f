"""What is written, read back by two other programs: warcio and FastWARC agree with each other and with the site."""

from __future__ import annotations

import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from warcio.archiveiterator import ArchiveIterator

HTML = {"Content-Type": "text/html; charset=utf-8"}
Seen = tuple[str, str, str, bytes]  # type, record id, address, payload


def by_warcio(path: Path) -> list[Seen]:
    """Every record; a wrong digest raises."""
    found = []
    with open(path, "rb") as f:
        for record in ArchiveIterator(f, check_digests="raise"):
            head = record.rec_headers
            named = [head.get_header(name) or "" for name in ("WARC-Record-ID", "WARC-Target-URI")]
            found.append((record.rec_type, *named, record.raw_stream.read()))
    return found


def by_fastwarc(path: Path) -> list[Seen]:
    """Every record, its digests verified."""
    fastwarc = pytest.importorskip("fastwarc.warc")
    kinds, found = fastwarc.WarcRecordType, []
    names = {int(getattr(kinds, k)): k for k in ("warcinfo", "response", "request", "revisit", "resource", "metadata")}
    with open(path, "rb") as f:
        for record in fastwarc.ArchiveIterator(f, parse_http=False):
            record.freeze()
            assert record.verify_block_digest() or "WARC-Block-Digest" not in record.headers, record.headers
            if record.is_http:
                record.parse_http()
            if record.record_type != kinds.revisit and "WARC-Payload-Digest" in record.headers:
                assert record.verify_payload_digest(), record.headers
            named = [record.headers.get(name) or "" for name in ("WARC-Record-ID", "WARC-Target-URI")]
            found.append((names[int(record.record_type)], *named, record.reader.read()))
    return found


def members(path: Path) -> list[bytes]:
    """What each gzip member of a file unfolds to."""
    rest, found = path.read_bytes(), []
    while rest:
        inflate = zlib.decompressobj(31)
        found.append(inflate.decompress(rest) + inflate.flush())
        assert inflate.eof
        rest = inflate.unused_data
    return found


def check(folder: Path) -> list[Seen]:
    """Both readers see the same records, as many as there are gzip members, each with an id of its own."""
    found = []
    for path in sorted(folder.glob("*.warc.gz")):
        records = by_warcio(path)
        assert records == by_fastwarc(path)
        written = members(path)
        assert len(written) == len(records) and all(m.startswith(b"WARC/1.1\r\n") for m in written)
        assert all(b"\r\nWARC-Block-Digest: sha1:" in m for m in written)
        assert records[0][0] == "warcinfo" and all(r[0] != "warcinfo" for r in records[1:])
        found += records
    ids = [id for _, id, _, _ in found]
    assert len(set(ids)) == len(ids) and all(i.startswith("<urn:uuid:") for i in ids)
    return found


@pytest.mark.slow
def test_the_demo_site(crawl: Any) -> None:
    crawl("demo", max_pages=60)
    kinds = Counter(kind for kind, *_ in check(crawl.artifact.path))
    assert kinds == {"warcinfo": 1, "response": 60, "request": 60}
    crawl("demo", max_pages=60, out="again", since="pages")
    kinds = Counter(kind for kind, *_ in check(crawl.artifact.path))
    assert kinds == {"warcinfo": 1, "response": 60, "revisit": 60, "request": 60}


ODD = {
    "/empty": (b"", HTML),
    "/no-type": (b"<p>no type", {}),
    "/binary": (bytes(range(256)) * 40, HTML),
    "/newlines": (b"\r\n\r\nWARC/1.1\r\nWARC-Type: response\r\n\r\n", HTML),
    "/like-gzip": (b"\x1f\x8b\x08\x00" + b"x" * 50, HTML),
    "/headers": (
        b"<p>headers",
        {
            **HTML,
            "X-Empty": "",
            "X-Latin": "caf\xe9 \xa0",
            "X-Long": "y" * 5000,
            "X-Colons": ": a : b :",
            "x-UPPER": "Z",
        },
    ),
    "/cookies": (b"<p>c", {**HTML, "Set-Cookie": "a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT"}),
    "/transfer": (b"<p>plain after all", {**HTML, "Content-Encoding": "identity"}),
    "/q?a=%C3%A9&b=[x]": (b"<p>query", HTML),
}


def test_odd_answers(site: Any, crawl: Any, Reply: Any, links: Any) -> None:
    site.routes |= {path: Reply(body, headers=dict(head)) for path, (body, head) in ODD.items()}
    site.routes |= {
        "/": links(*ODD, "/chunks", "/created"),
        "/chunks": Reply(headers=HTML, chunks=[b"<p>", b"in ", b"pieces"]),
        "/created": Reply(b"<p>201", status=201, headers=HTML),
    }
    crawl(site.url)
    payload = {
        url.removeprefix(site.url): body for kind, _, url, body in check(crawl.artifact.path) if kind == "response"
    }
    assert {path: payload[path] for path in ODD} == {path: body for path, (body, _) in ODD.items()}
    assert payload["/chunks"] == b"<p>in pieces" and payload["/created"] == b"<p>201"
    stored = {
        r.rec_headers.get_header("WARC-Target-URI"): r.http_headers for r in crawl.records() if r.rec_type == "response"
    }
    heads = stored[f"{site.url}/headers"]
    assert heads.get_header("X-Colons") == ": a : b :" and heads.get_header("X-UPPER") == "Z"
    assert len(heads.get_header("X-Long")) == 5000
    crawl(site.url, out="again", since="pages")
    again = Counter(kind for kind, *_ in check(crawl.artifact.path))
    assert again["revisit"] == again["response"] == again["request"] == len(ODD) + 3


def test_a_status_line_without_a_reason_or_with_an_odd_one(crawl: Any, raw: Any) -> None:
    base = raw(
        {
            "/": b"HTTP/1.1 200\r\nContent-Type: text/html\r\nContent-Length: 36\r\n\r\n"
            b"<a href=/odd>x</a><a href=/old>y</a>",
            "/odd": b"HTTP/1.1 200 \xdcbel & gut\r\nContent-Type: text/html\r\nContent-Length: 1\r\n\r\nx",
            "/old": b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nX-A: 1\r\n folded\r\n\r\nuntil it closes",
        }
    )
    assert len(crawl(base)) == 3
    payload = {url.removeprefix(base): body for kind, _, url, body in check(crawl.artifact.path) if kind == "response"}
    assert payload["/odd"] == b"x" and payload["/old"] == b"until it closes"


@pytest.mark.parametrize("name", ["chatnoir-resiliparse__warcfile.warc.gz", "warcio__example.warc"])
def test_copied_archives_read_back(data: Path, crawl: Any, name: str) -> None:
    """Records of other programs, compressed and plain: nothing is added to what they say but a block digest."""
    source = data / "web" / "warc" / name
    crawl(str(source))
    path = next(crawl.artifact.path.glob("*.warc.gz"))
    assert by_warcio(path) == by_fastwarc(path) and len(by_warcio(path)) == len(members(path)) > 6
    with open(source, "rb") as f:
        before = [(r.rec_type, dict(r.rec_headers.headers), r.content_stream().read()) for r in ArchiveIterator(f)]
    copied = [(r.rec_type, dict(r.rec_headers.headers), r.body) for r in crawl.records()][1:]  # behind our warcinfo
    for (_, ours, _), (_, theirs, _) in zip(copied, before, strict=True):
        ours.pop("WARC-Block-Digest", "")
        theirs.pop("WARC-Block-Digest", "")
    assert copied == before
