"""A web site on loopback that misbehaves as it is told, and counts who asks for what."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from warcio.archiveiterator import ArchiveIterator

from llmctl.console import Console
from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.crawler import Crawler
from llmctl.crawl.stage import run
from llmctl.workspace import Artifact, Workspace


@dataclass
class Reply:
    """What the site answers: `chunks` are sent one by one, `pause` seconds apart."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] | None = None
    pause: float = 0.0
    length: int | None = None


Route = Callable[[], "Reply | str"]


@dataclass
class Site:
    """Routes by path (with query); `asked` counts the requests, `times` says when they came, `heads` their headers."""

    routes: dict[str, Any] = field(default_factory=dict)
    fallback: Callable[[str], Any] = lambda path: Reply(b"none", 404)
    asked: Counter[str] = field(default_factory=Counter)
    times: list[tuple[str, float]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, headers: dict[str, str]) -> Reply:
        with self._lock:
            self.asked[path] += 1
            self.times.append((path, time.monotonic()))
            self.heads.append(headers)
        found = self.routes[path] if path in self.routes else self.fallback(path)
        found = found() if callable(found) else found
        return Reply(found.encode(), headers={"Content-Type": "text/html"}) if isinstance(found, str) else found

    def enter(self) -> None:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)

    def leave(self) -> None:
        with self._lock:
            self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        self.site.enter()
        try:
            self._reply(self.site.answer(self.path, dict(self.headers)))
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self.site.leave()

    def _reply(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        length = len(reply.body) if reply.length is None else reply.length
        if reply.chunks is None or reply.length is not None:
            self.send_header("Content-Length", str(length))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        for chunk in reply.chunks if reply.chunks is not None else [reply.body]:
            time.sleep(reply.pause)
            self.wfile.write(chunk)
        if reply.length is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[], Site]]:
    """Makes sites, each on a port of its own."""
    servers = []

    def make() -> Site:
        site = Site()
        handler = type("Handler", (_Handler,), {"site": site})
        server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        servers.append(server)
        return site

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def site(serve: Callable[[], Site]) -> Site:
    """One site."""
    return serve()


class Crawl:
    """Runs the stage without politeness, unless a test asks for it, and reads what it made."""

    def __init__(self, workspace: Workspace, console: Console) -> None:
        self.workspace, self.console = workspace, console
        self.artifact: Artifact
        self.check_digests: str | bool = "raise"

    def __call__(self, *source: str, out: str = "pages", **settings: Any) -> list[str]:
        """The addresses of the pages that were stored, in their order."""
        settings.setdefault("politeness", {}).setdefault("delay", 0.0)
        settings.setdefault("fetch", {}).setdefault("backoff", 0.01)
        config = CrawlConfig.model_validate({"source": list(source), "out": out, **settings})
        self.artifact = run(config, self.workspace, self.console)
        return [r.rec_headers.get_header("WARC-Target-URI") for r in self.records() if r.rec_type == "response"]

    def records(self) -> list[Any]:
        found = []
        for path in sorted(self.artifact.path.glob("*.warc.gz")):
            with open(path, "rb") as f:
                for record in ArchiveIterator(f, check_digests=self.check_digests):
                    record.body = record.content_stream().read()
                    found.append(record)
        return found

    def outcome(self, url: str) -> dict[str, Any]:
        """What `urls.jsonl` says of an address."""
        import json

        lines = (self.artifact.path / "urls.jsonl").read_text(encoding="utf-8").split("\n")
        return next(row for row in map(json.loads, filter(None, lines)) if row["url"] == url)


@pytest.fixture
def crawl(workspace: Workspace, console: Console) -> Crawl:
    """The stage, ready to run."""
    return Crawl(workspace, console)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the crawler decided on each request: what politeness promises, however late a loaded machine sends it."""
    times: list[float] = []
    decide = Crawler._request

    def noting(self: Crawler, host: str) -> Any:
        request = decide(self, host)
        times.extend([] if request is None else [time.monotonic()])
        return request

    monkeypatch.setattr(Crawler, "_request", noting)
    return times


def links(*targets: str) -> str:
    """A page with links; its text differs with them."""
    return "<html><body>" + "".join(f'<a href="{t}">{t}</a> ' for t in targets) + "</body></html>"


@pytest.fixture(name="links")
def links_fixture() -> Callable[..., str]:
    """`links(*targets)`: a page with links."""
    return links


@pytest.fixture(name="Reply")
def reply_fixture() -> type[Reply]:
    """The class of answers."""
    return Reply


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for sources on disk."""
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture
def raw() -> Iterator[Callable[..., str]]:
    """Makes servers that answer each path with the bytes given for it and then close, or never answer where None is.

    `raw(answers, ssl_context)` gives the address. Everything else is a 404.
    """
    servers: list[socket.socket] = []

    def make(answers: dict[str, bytes | Iterable[bytes] | None], context: ssl.SSLContext | None = None) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        threading.Thread(target=_accept, args=(server, answers, context), daemon=True).start()
        return f"http{'s' if context else ''}://127.0.0.1:{server.getsockname()[1]}"

    yield make
    for server in servers:
        server.close()


def _accept(server: socket.socket, answers: dict[str, Any], context: ssl.SSLContext | None) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, answers, context), daemon=True).start()


def _answer(connection: socket.socket, answers: dict[str, Any], context: ssl.SSLContext | None) -> None:
    try:
        if context:
            connection = context.wrap_socket(connection, server_side=True)
        head = connection.recv(65536)
        answer = answers.get(head.split(b" ")[1].decode(), b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
        if answer is None:
            connection.recv(1)  # until the other side has had enough
        for piece in [answer] if isinstance(answer, bytes) else answer or []:
            connection.sendall(piece)
    except (OSError, IndexError, ValueError):
        pass
    finally:
        connection.close()
