"""The live crawl against a site that misbehaves."""

from __future__ import annotations

import gzip
import time
import zlib
from itertools import pairwise
from typing import Any

import pytest

from llmctl.console import Console
from llmctl.crawl.network import GuardedBackend, Refused
from llmctl.errors import UserError


def test_pages_links_and_duplicates(site: Any, crawl: Any, links: Any) -> None:
    site.routes |= {
        "/": links("a", "/a#x", "./b/../a", "HTTP://127.0.0.1/elsewhere", "mailto:x@y.z", "/b?utm_source=mail", "b", "http://other.example/"),
        "/a": links("/"),
        "/b": links("/c"),
        "/c": '<base href="/deep/"><a href="d">d</a>',
        "/deep/d": "<p>end",
    }  # fmt: skip
    assert crawl(site.url) == [f"{site.url}{p}" for p in ("/", "/a", "/b", "/c", "/deep/d")]
    assert max(site.asked.values()) == 1
    assert crawl.artifact.figures["pages"] == 5


def test_records_are_what_was_sent_and_asked(site: Any, crawl: Any, Reply: Any) -> None:
    body = "<p>Grüße, hello".encode()
    head = {"Content-Type": "text/html; charset=utf-8", "X-Thing": "a", "ETag": '"1"'}
    site.routes["/p?q=1"] = Reply(body, headers=head)
    crawl(f"{site.url}/p?q=1", politeness={"contact": "me@example.org", "delay": 0.0})
    info, response, request = crawl.records()
    assert [r.rec_type for r in (info, response, request)] == ["warcinfo", "response", "request"]
    assert response.rec_headers.protocol == "WARC/1.1"
    assert response.body == body
    assert response.http_headers.get_statuscode() == "200"
    assert response.http_headers.get_header("X-Thing") == "a"
    assert response.rec_headers.get_header("WARC-IP-Address") == "127.0.0.1"
    assert response.rec_headers.get_header("WARC-Payload-Digest").startswith("sha1:")
    assert request.http_headers.protocol == "GET" and request.http_headers.statusline == "/p?q=1 HTTP/1.1"
    assert "me@example.org" in request.http_headers.get_header("User-Agent")
    assert request.rec_headers.get_header("WARC-Concurrent-To") == response.rec_headers.get_header("WARC-Record-ID")
    whole = next(crawl.artifact.path.glob("*.warc.gz")).read_bytes()
    members = 0
    while whole:
        inflate = zlib.decompressobj(31)
        assert inflate.decompress(whole).startswith(b"WARC/1.1")
        whole, members = inflate.unused_data, members + 1
    assert members == 3


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw-deflate"])
def test_compressed_and_chunked_bodies_are_stored_plain(site: Any, crawl: Any, Reply: Any, encoding: str) -> None:
    body = b"<p>" + b"hello " * 1000
    raw = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "raw-deflate": raw.compress(body) + raw.flush(),
    }
    head = {"Content-Type": "text/html", "Content-Encoding": encoding.removeprefix("raw-")}
    site.routes["/"] = Reply(headers=head, chunks=[packed[encoding][:20], packed[encoding][20:]])
    crawl(site.url)
    response = crawl.records()[1]
    assert response.body == body
    assert response.http_headers.get_header("Content-Encoding") is None
    assert response.http_headers.get_header("X-Crawl-Content-Encoding") == encoding.removeprefix("raw-")
    assert response.http_headers.get_header("Content-Length") == str(len(body))


def test_depth_patterns_and_limits(site: Any, crawl: Any, links: Any) -> None:
    site.fallback = lambda path: links(path + "x", path + "y.pdf") if path != "/robots.txt" else ""
    assert crawl(site.url, scope={"depth": 2, "exclude": [r"\.pdf"]}) == [f"{site.url}/{x}" for x in ("", "x", "xx")]
    site.asked.clear()
    assert len(crawl(site.url, out="few", max_pages=4)) == 4
    assert sum(n for path, n in site.asked.items() if path != "/robots.txt") == 4
    given = [f"{site.url}/{i}" for i in range(6)]
    assert crawl(*given, out="given", max_pages=1, scope={"depth": 0}) == given


def test_redirects(site: Any, crawl: Any, links: Any, Reply: Any, serve: Any, capsys: Any) -> None:
    def to(where: str) -> Any:
        return Reply(status=302, headers={"Location": where})

    other = serve()
    other.routes["/"] = "<p>other"
    site.routes |= {
        "/": links("/one", "/loop", "/self", "/away", "/nowhere", "/chain0"),
        "/one": to("/two"), "/two": "<p>two", "/loop": to("/pool"), "/pool": to("/loop"), "/self": to("/self"),
        "/away": to(other.url), "/nowhere": to("javascript:1"),
        **{f"/chain{i}": to(f"/chain{i + 1}") for i in range(9)},
    }  # fmt: skip
    assert crawl(site.url) == [f"{site.url}/", f"{site.url}/two"]
    assert crawl.outcome(f"{site.url}/one")["target"] == f"{site.url}/two"
    assert crawl.outcome(f"{site.url}/away")["why"] == "redirect: another host"
    assert crawl.outcome(f"{site.url}/chain5")["why"] == "redirect: too many redirects"
    assert site.asked["/loop"] == site.asked["/pool"] == site.asked["/self"] == 1
    assert not other.asked
    crawl.console = Console()
    with pytest.raises(UserError, match="another host"):
        crawl(f"{site.url}/away", out="seed")
    assert "scope.hosts" in capsys.readouterr().err


def test_a_redirect_is_asked_of_robots_txt(site: Any, crawl: Any, Reply: Any) -> None:
    site.routes |= {
        "/robots.txt": Reply(b"User-agent: *\nDisallow: /shut", headers={"Content-Type": "text/plain"}),
        "/": "<a href=/go>go</a>",
        "/go": Reply(status=301, headers={"Location": "/shut"}),
    }
    assert crawl(site.url) == [f"{site.url}/"]
    assert site.asked["/shut"] == 0


def test_retries_wait_as_asked(site: Any, crawl: Any, Reply: Any) -> None:
    replies = iter(
        [Reply(status=503, headers={"Retry-After": "1"}), Reply(b"<p>at last", headers={"Content-Type": "text/html"})]
    )
    site.routes["/"] = lambda: next(replies)
    assert crawl(site.url) == [f"{site.url}/"]
    first, second = (t for path, t in site.times if path == "/")
    assert second - first >= 0.99


def test_giving_up(site: Any, crawl: Any, links: Any, Reply: Any) -> None:
    site.routes |= {
        "/": links("/busy", "/gone", "/late"),
        "/busy": Reply(status=500),
        "/gone": Reply(status=404),
        "/late": Reply(status=503, headers={"Retry-After": "86400"}),
    }
    crawl(site.url, fetch={"retries": 2, "backoff": 0.01})
    assert (site.asked["/busy"], site.asked["/gone"], site.asked["/late"]) == (3, 1, 1)
    assert crawl.outcome(f"{site.url}/busy")["why"] == "status 500"


def test_unwanted_bodies(site: Any, crawl: Any, links: Any, Reply: Any) -> None:
    html = {"Content-Type": "text/html"}
    site.routes |= {
        "/": links("/big", "/stated", "/bomb", "/pdf", "/strange", "/bent", "/small"),
        "/big": Reply(headers=html, chunks=[b"x" * 50_000] * 4),
        "/stated": Reply(b"x" * 150_000, headers=html),
        "/bomb": Reply(gzip.compress(b"\0" * 200_000_000, 9), headers={**html, "Content-Encoding": "gzip"}),
        "/pdf": Reply(b"%PDF", headers={"Content-Type": "application/pdf"}),
        "/strange": Reply(b"?", headers={**html, "Content-Encoding": "zstd"}),
        "/bent": Reply(b"no gzip at all", headers={**html, "Content-Encoding": "gzip"}),
        "/small": "<p>fine",
    }
    assert crawl(site.url, fetch={"max_bytes": 100_000}) == [f"{site.url}/", f"{site.url}/small"]
    why = {p: crawl.outcome(f"{site.url}/{p}")["why"] for p in ("big", "stated", "bomb", "pdf", "strange", "bent")}
    assert why == {
        "big": "too large", "stated": "too large", "bomb": "too large", "pdf": "content type application/pdf",
        "strange": "content encoding zstd", "bent": "content encoding gzip",
    }  # fmt: skip


@pytest.mark.slow
def test_slow_and_broken_answers(site: Any, crawl: Any, links: Any, Reply: Any) -> None:
    html = {"Content-Type": "text/html"}
    site.routes |= {
        "/": links("/silent", "/drip", "/cut", "/fine"),
        "/silent": Reply(headers=html, chunks=[b"late"], pause=1.5),
        "/drip": Reply(headers=html, chunks=[b"x"] * 100, pause=0.2),
        "/cut": Reply(headers=html, chunks=[b"short"], length=500),
        "/fine": "<p>fine",
    }
    begun = time.monotonic()
    settings = {"timeout": 0.5, "retries": 1, "backoff": 0.01}
    assert crawl(site.url, fetch=settings, politeness={"per_host": 4, "delay": 0.0}) == [
        f"{site.url}/",
        f"{site.url}/fine",
    ]
    assert time.monotonic() - begun < 15
    assert crawl.outcome(f"{site.url}/silent")["why"] == "timed out"
    assert crawl.outcome(f"{site.url}/drip")["why"] == "timed out"
    assert "broken answer" in crawl.outcome(f"{site.url}/cut")["why"]
    assert site.asked["/cut"] == 2


def test_politeness(site: Any, crawl: Any, links: Any, Reply: Any, begun: list[float]) -> None:
    site.routes["/"] = links(*(f"/{i}" for i in range(4)))
    site.fallback = lambda path: Reply(b"<p>x", headers={"Content-Type": "text/html"}, chunks=[b"<p>x"], pause=0.05)
    crawl(site.url, politeness={"delay": 0.2})
    assert len(begun) == 6 and all(b - a >= 0.2 for a, b in pairwise(begun))
    assert site.most_at_once == 1


def test_one_slow_host_does_not_hold_up_another(serve: Any, crawl: Any, links: Any) -> None:
    slow, quick = serve(), serve()
    slow.routes["/robots.txt"] = "User-agent: *\nCrawl-delay: 0.8"
    for s in (slow, quick):
        s.routes["/"] = links(*(f"/{i}" for i in range(4)))
        s.fallback = lambda path: f"<p>{path}"
    assert len(crawl(slow.url, quick.url)) == 10
    assert max(t for _, t in quick.times) < sorted(t for _, t in slow.times)[3]


def test_traps_are_bounded(site: Any, crawl: Any, links: Any) -> None:
    def trap(path: str) -> str:
        if path.startswith("/calendar"):
            month = int(path.partition("=")[2] or 0)
            return links(f"/calendar?month={month + 1}", f"/calendar?month={month - 1}")
        if path.startswith("/same"):
            return links("again/")  # byte for byte the same at every depth
        return links("round/" if path.endswith("/") else "/", path)  # /round/round/round/...

    site.fallback = trap
    site.routes |= {"/robots.txt": "", "/": links("/calendar?month=1", "/same/", "/circle/")}
    found = crawl(site.url, scope={"max_queries": 8, "depth": 100})
    assert sum("/calendar" in u for u in found) == 8
    assert sum("/same" in u for u in found) == 2
    assert sum("/circle" in u for u in found) == 4


def test_pages_that_ask_not_to_be_followed(site: Any, crawl: Any, Reply: Any) -> None:
    site.routes |= {
        "/": '<meta name="ROBOTS" content="noindex, NoFollow"><a href="/a">a</a>',
        "/head": Reply(b"<a href=/b>b</a>", headers={"Content-Type": "text/html", "X-Robots-Tag": "llmctl: none"}),
    }
    assert len(crawl(site.url, f"{site.url}/head")) == 2


def test_private_addresses_are_refused(
    site: Any, crawl: Any, links: Any, Reply: Any, serve: Any, monkeypatch: Any
) -> None:
    """A public name that resolves to this machine; by link, by redirect, and as a source."""
    inner = serve()
    port = inner.url.rpartition(":")[2]
    inner.routes["/"] = "<p>secret"
    real = GuardedBackend._resolve

    async def resolve(self: Any, host: str, port: int, timeout: Any) -> list[str]:
        return await real(self, host, port, timeout) if host == "127.0.0.1" else await fake(self, host, port)

    async def fake(self: Any, host: str, port: int) -> list[str]:
        import asyncio

        loop = asyncio.get_running_loop()
        with monkeypatch.context() as m:

            async def lookup(*args: Any, **kw: Any) -> Any:
                return [(2, 1, 6, "", ("127.0.0.1", port))]

            m.setattr(type(loop), "getaddrinfo", lookup)
            return await real(self, host, port, None)

    monkeypatch.setattr(GuardedBackend, "_resolve", resolve)
    evil = f"http://evil.example:{port}"
    site.routes |= {"/": links(f"{evil}/", "/hop"), "/hop": Reply(status=302, headers={"Location": f"{evil}/hop"})}
    assert crawl(site.url, scope={"hosts": ["*"]}) == [f"{site.url}/"]
    assert "private address (127.0.0.1)" in crawl.outcome(f"{evil}/")["why"]
    assert "private address" in crawl.outcome(f"{evil}/hop")["why"]
    with pytest.raises(UserError, match="private address"):
        crawl(f"{evil}/", out="source")
    assert not inner.asked
    assert crawl(f"{evil}/", out="own", politeness={"private_hosts": ["evil.example"], "delay": 0.0}) == [f"{evil}/"]


def test_a_named_private_source_opens_only_its_own_port(site: Any, serve: Any, crawl: Any, links: Any) -> None:
    other = serve()
    site.routes["/"] = links(other.url)
    assert crawl(site.url, scope={"hosts": ["*"]}) == [f"{site.url}/"]
    assert not other.asked
    assert issubclass(Refused, Exception)


def test_no_such_host_and_nothing_there(crawl: Any) -> None:
    with pytest.raises(UserError, match="no such host"):
        crawl("http://no-such-host.invalid/")
    with pytest.raises(UserError, match="connection failed"):
        crawl("http://127.0.0.1:9/", fetch={"retries": 0})


def test_hosts_that_fail_are_tried_anew_next_time(site: Any, crawl: Any, Reply: Any) -> None:
    site.routes["/"] = Reply(status=404)
    with pytest.raises(UserError, match="status 404"):
        crawl(site.url)
    site.routes["/"] = "<p>there"
    assert crawl(site.url) == [f"{site.url}/"]


def test_segments_are_rotated(site: Any, crawl: Any, links: Any) -> None:
    site.routes["/"] = links(*(f"/{i}" for i in range(12)))
    site.fallback = lambda path: f"<p>{path}" * 50
    assert len(crawl(site.url, segment_bytes=2000)) == 13
    files = sorted(p.name for p in crawl.artifact.path.glob("*.warc.gz"))
    assert len(files) > 2 and files[:2] == ["live-00000.warc.gz", "live-00001.warc.gz"]


def test_hostile_html(site: Any, crawl: Any) -> None:
    site.routes |= {
        "/": "<a href=/deep>x</a><a href=/binary>y</a><a href=/attrs>z</a>",
        "/deep": "<div>" * 100_000 + "<a href=/end>e</a>",
        "/binary": "\0\ufffd" * 1000 + "<a href='/%zz'>",
        "/attrs": '<a href="http://[::1">x</a><a href="http://exa mple/">x</a><base href="\\\\"><a href>x</a>',
    }
    site.fallback = lambda path: "<p>end"
    found = crawl(site.url)
    assert {f"{site.url}{p}" for p in ("/", "/deep", "/binary", "/attrs")} <= set(found)
