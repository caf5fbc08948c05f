"""Servers that do their worst: each costs one clear line or one counted page, and no time, memory or page of others."""

from __future__ import annotations

import errno
import gzip
import itertools
import os
import resource
import shutil
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmctl.crawl.frontier import Frontier
from llmctl.errors import UserError

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
QUICK = {"timeout": 0.4, "retries": 0}


def page(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def home(*links: str) -> bytes:
    return page("".join(f"<a href='{link}'>x</a>" for link in links).encode())


def endless(head: bytes, piece: bytes, pause: float = 0.0) -> Iterator[bytes]:
    yield head
    for _ in itertools.count():
        yield piece
        time.sleep(pause)


def test_a_certificate_of_ones_own(raw: Any, crawl: Any, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with pytest.raises(UserError, match="the certificate is not valid"):
        crawl(raw({"/": page(b"<p>secret")}, context), fetch=QUICK)


def test_no_tls_where_it_should_be(raw: Any, crawl: Any) -> None:
    with pytest.raises(UserError, match=r"connection failed|broken answer"):
        crawl(raw({"/": page(b"x")}).replace("http:", "https:"), fetch=QUICK)


def test_pages_without_end(raw: Any, crawl: Any) -> None:
    """A stream that goes on for ever, one that says it is 10 GB, and gzip bombs, nested and endless."""
    squeeze = gzip.compress(b"\0" * 50_000_000)
    packed = OK + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n"
    base = raw(
        {
            "/": home("/endless", "/10gb", "/bomb", "/bombs", "/fine"),
            "/endless": endless(OK + b"Connection: close\r\n\r\n", b"x" * 65536),
            "/10gb": endless(OK + b"Content-Length: 10000000000\r\n\r\n", b"x" * 65536),
            "/bomb": packed + squeeze,
            "/bombs": endless(packed, squeeze),
            "/fine": page(b"<p>fine"),
        }
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert crawl(base, fetch={"max_bytes": 1_000_000}) == [f"{base}/", f"{base}/fine"]
    assert {crawl.outcome(f"{base}{p}")["why"] for p in ("/endless", "/10gb", "/bomb", "/bombs")} == {"too large"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; the bomb alone is 50 MB


def test_a_content_length_that_is_wrong(raw: Any, crawl: Any) -> None:
    """Too long: the page is cut off. Too short: what is behind it must not become the next answer."""
    smuggled = page(b"<p>smuggled")
    base = raw(
        {
            "/": home("/long", "/short", "/no-number", "/two", "/next"),
            "/long": OK + b"Content-Length: 500\r\n\r\nshort",
            "/short": OK + b"Content-Length: 5\r\n\r\n<p>ok" + smuggled,
            "/no-number": OK + b"Content-Length: many\r\n\r\n<p>x",
            "/two": OK + b"Content-Length: 3\r\nContent-Length: 9\r\n\r\n<p>smuggl",
            "/next": page(b"<p>next"),
        }
    )
    assert crawl(base, fetch={"timeout": 10.0, "retries": 0}) == [f"{base}/", f"{base}/short", f"{base}/next"]
    assert [r.body for r in crawl.records() if r.rec_type == "response"][1:] == [b"<p>ok", b"<p>next"]
    for path in ("/long", "/no-number", "/two"):
        # On a busy machine the server is gone, with a reset, before its answer is read.
        assert crawl.outcome(base + path)["why"].startswith(("broken answer", "connection failed")), path


def test_answers_that_are_no_http(raw: Any, crawl: Any) -> None:
    base = raw(
        {
            "/": home("/nothing", "/noise", "/heads", "/line", "/fine"),
            "/nothing": b"",
            "/noise": bytes(range(256)) * 20,
            "/heads": endless(OK, b"X-More: and more\r\n"),
            "/line": endless(b"HTTP/1.1 200 ", b"O" * 1000),
            "/fine": page(b"<p>fine"),
        }
    )
    assert crawl(base, fetch={"timeout": 10.0, "retries": 0}) == [f"{base}/", f"{base}/fine"]
    assert all(
        crawl.outcome(f"{base}/{p}")["why"].startswith("broken answer") for p in ("nothing", "noise", "heads", "line")
    )


def test_slow_loris(raw: Any, crawl: Any) -> None:
    """A server that sends a byte now and then never times out by silence."""
    base = raw(
        {
            "/": home("/head", "/body", "/never", "/fine"),
            "/head": endless(OK + b"X-Slow: ", b"x", 0.1),
            "/body": endless(OK + b"Connection: close\r\n\r\n", b"x", 0.1),
            "/never": None,
            "/fine": page(b"<p>fine"),
        }
    )
    assert crawl(base, fetch=QUICK, politeness={"per_host": 4, "delay": 0.0}) == [f"{base}/", f"{base}/fine"]
    # A connection that is refused under load has failed too.
    assert {crawl.outcome(f"{base}/{p}")["why"] for p in ("head", "body", "never")} <= {
        "timed out",
        "connection failed",
    }


def test_redirects_without_end(site: Any, crawl: Any, Reply: Any, links: Any) -> None:
    """Each to an address that was never seen before, or longer by one each time."""
    numbers = itertools.count()
    site.fallback = lambda path: Reply(status=302, headers={"Location": f"/to/{next(numbers)}"})
    site.routes |= {
        "/robots.txt": "",
        "/": links("/to/x", "/grow"),
        "/grow": Reply(status=302, headers={"Location": "/grow?" + "a" * 3000}),
    }
    assert crawl(site.url) == [f"{site.url}/"]
    assert sum(site.asked.values()) == 2 + 1 + 6
    assert crawl.artifact.figures["left_out"]["failed: redirect: too many redirects"] == 1
    assert crawl.outcome(f"{site.url}/grow")["why"] == "redirect: a trap"


def test_bytes_that_are_no_text(raw: Any, crawl: Any) -> None:
    """Invalid UTF-8 in the page, its links, its headers and a redirect."""
    base = raw(
        {
            "/": page(b"\xc3\x28\xff\xfe<a href='/\xe9t\xe9'>x</a><a href='/go'>y</a><a href='/fine'>z</a>"),
            "/fine": OK + b"X-\x41: \xff\xfe\r\nContent-Length: 6\r\n\r\n\x80\x81<p>x",
            "/go": b"HTTP/1.1 302 \xff\r\nLocation: /caf\xe9\r\nContent-Length: 0\r\n\r\n",
        }
    )
    assert {f"{base}/", f"{base}/fine"} <= set(crawl(base))
    assert crawl.outcome(f"{base}/go")["state"] == "redirect"
    assert next(r.body for r in crawl.records() if r.rec_type == "response").startswith(b"\xc3\x28\xff\xfe")


def test_robots_txt_of_any_size(raw: Any, crawl: Any) -> None:
    """The first 500 KiB count, as RFC 9309 asks at least."""
    rules = b"User-agent: *\nDisallow: /shut\n" + b"# filler\n" * 60_000
    huge = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
    for head in (huge + b"Content-Length: 100000000\r\n\r\n", huge + b"Connection: close\r\n\r\n"):
        base = raw(
            {
                "/robots.txt": endless(head + rules, b"Disallow: /\n" * 1000),
                "/": home("/shut", "/open"),
                "/open": page(b"x"),
            }
        )
        assert crawl(base, out=f"p{len(head)}") == [f"{base}/", f"{base}/open"]
        assert crawl.outcome(f"{base}/shut")["why"] == "robots.txt"


def test_robots_txt_that_goes_round_in_circles(site: Any, crawl: Any, Reply: Any) -> None:
    site.routes |= {
        "/": "<p>home",
        "/robots.txt": Reply(status=301, headers={"Location": "/there"}),
        "/there": Reply(status=301, headers={"Location": "/robots.txt"}),
    }
    assert crawl(site.url) == [f"{site.url}/"]
    assert site.asked["/robots.txt"] == site.asked["/there"] == 3


def test_robots_txt_that_never_comes(raw: Any, crawl: Any) -> None:
    with pytest.raises(UserError, match="timed out"):
        crawl(raw({"/robots.txt": None, "/": page(b"x")}), fetch=QUICK)


def test_a_host_that_hangs_does_not_hold_up_another(raw: Any, site: Any, crawl: Any, links: Any) -> None:
    """Even where as many requests to a host are allowed as there are in all."""
    never = {f"/{i}": None for i in range(8)}
    hanging = raw({"/": home(*never), **never})
    site.fallback = lambda path: f"<p>{path}"
    site.routes["/"] = links(*(f"/{i}" for i in range(20)))
    began = time.monotonic()
    found = crawl(
        hanging, site.url, concurrency=4, politeness={"per_host": 4, "delay": 0.0}, fetch={"timeout": 0.5, "retries": 0}
    )
    assert len(found) == 1 + 21
    assert max(t for _, t in site.times) - began < 0.8 * (time.monotonic() - began)


def test_calendars_and_sessions_in_paths(site: Any, crawl: Any, links: Any) -> None:
    """Pages without end below paths that end in a date, or begin with a session: some are taken, not all there are."""
    sessions = itertools.count(0x1234567890ABCDEF1234567890ABCDEF)

    def answer(path: str) -> str:
        parts = path.strip("/").split("/")
        if parts[0] == "events":
            year = int(parts[1])
            return links(*(f"/events/{year + dy}/{m:02d}/" for dy in (0, 1) for m in (1, 6, 12))) + path
        if parts[-1] == "a.aspx":
            return links(f"/(S({next(sessions):032x}))/a.aspx")
        if parts[0] == "s":
            return links(*(f"/s/{next(sessions):032x}/{name}" for name in ("list", "cart")))
        return links(
            "/events/2024/01/", "/s/1234567890abcdef1234567890abcdef/list", "/a.aspx", "/post/2024-01-02/first"
        )

    site.fallback = answer
    site.routes |= {
        "/robots.txt": "",
        "/a.aspx": links("/(S(0aaaaaaaaaaaaaaaaaaaaaaa))/a.aspx"),
        "/post/2024-01-02/first": "<p>a post",
    }
    found = crawl(site.url, scope={"max_queries": 10, "depth": 50})
    assert sum("/events/" in u for u in found) == 10
    assert sum("/s/" in u for u in found) == 20
    assert sum(u.endswith("/a.aspx") for u in found) == 1 + 10
    assert f"{site.url}/post/2024-01-02/first" in found


class TestAFullDisk:
    """One clear line, exit 2; what was on disk is kept, and the crawl goes on when there is room."""

    @pytest.fixture
    def pages(self, site: Any, links: Any) -> Any:
        def answer(path: str) -> str:
            number = int(path[1:] or 0)
            return links(*(f"/{c}" for c in (2 * number + 1, 2 * number + 2) if c < 40)) + os.urandom(20_000).hex()

        site.fallback = answer
        site.routes["/robots.txt"] = ""
        return site

    def test_of_the_archive(self, pages: Any, tmp_path: Path) -> None:
        own = ["crawl", pages.url, "-w", str(tmp_path / "w"), "-s", "politeness.delay=0"]
        command = [sys.executable, "-m", "llmctl.cli.main", *own]
        limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)); os.execv(sys.argv[1], sys.argv[1:])"
        limit = f"import os, resource, sys; {limit}"
        full = subprocess.run([sys.executable, "-c", limit, *command], capture_output=True, text=True, timeout=60)
        assert full.returncode == 2 and "Traceback" not in full.stderr, full.stderr
        assert "make room" in full.stderr
        asked = sum(pages.asked.values())
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert asked > 3 and sum(pages.asked.values()) <= 41 + 3  # nothing that was on disk is asked for again

    @pytest.mark.parametrize("method", ["commit", "finish", "add"])
    def test_of_the_frontier(self, pages: Any, crawl: Any, monkeypatch: Any, method: str) -> None:
        calls, real = 0, getattr(Frontier, method)

        def full(self: Frontier, *args: Any, **kw: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > 8:
                raise sqlite3.OperationalError("database or disk is full")
            return real(self, *args, **kw)

        with monkeypatch.context() as patched:
            patched.setattr(Frontier, method, full)
            with pytest.raises(UserError, match="disk is full"):
                crawl(pages.url)
        assert len(crawl(pages.url)) == 40
        assert sum(pages.asked.values()) <= 41 + 2

    def test_of_the_list_of_addresses(self, pages: Any, crawl: Any, monkeypatch: Any) -> None:
        def full(*args: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "urls.jsonl")

        with monkeypatch.context() as patched:
            patched.setattr("llmctl.crawl.stage.write_atomic", full)
            with pytest.raises(OSError, match="No space left"):  # the command line has a line for it
                crawl(pages.url)
        pages.asked.clear()
        assert len(crawl(pages.url)) == 40 and not pages.asked

    def test_of_copied_files(self, folder: Path, crawl: Any, monkeypatch: Any) -> None:
        def full(*args: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        (folder / "a.html").write_text("<p>on disk")
        monkeypatch.setattr("llmctl.crawl.archive.os", SimpleNamespace(fsync=full, truncate=os.truncate))
        with pytest.raises(UserError, match="No space left"):
            crawl(str(folder))
        monkeypatch.undo()
        assert len(crawl(str(folder))) == 0 and crawl.artifact.figures["copied"] == 1
