"""The web search endpoint, against a server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llmctl.errors import UserError
from llmctl.tools import web
from llmctl.tools.toolbox import NOTHING, Toolbox
from llmctl.tools.web import SearchFailed, WebSearch


class Endpoint(BaseHTTPRequestHandler):
    """Answers what the test put into `answer`; keeps what it was asked."""

    answer: Any = None
    asked: list[tuple[str, str | None]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization")))
        status, headers, body = self.answer
        self.send_response(status)
        for header in headers.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    Endpoint.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}/search?format=json&q={{query}}"
    server.shutdown()
    server.server_close()


def answers(value: Any, status: int = 200, **headers: str) -> None:
    Endpoint.answer = (status, headers, value if isinstance(value, bytes) else json.dumps(value).encode())


PAGE = ("A <b>deque</b> &amp; more", "It is a <strong>queue</strong> with\n two ends.")


@pytest.mark.parametrize(
    "answer",
    [
        {"query": "x", "results": [{"title": PAGE[0], "content": PAGE[1], "url": "u"}, {"title": "b", "content": "c"}]},
        {"web": {"results": [{"title": PAGE[0], "description": PAGE[1]}]}},
        {"items": [{"title": PAGE[0], "snippet": PAGE[1]}]},
        {"organic": [{"title": PAGE[0], "snippet": PAGE[1]}]},
        {"webPages": {"value": [{"name": PAGE[0], "snippet": PAGE[1]}]}},
        [{"title": PAGE[0], "text": PAGE[1]}],
        [5, None, {"title": "no text"}, {"title": PAGE[0], "text": PAGE[1]}],
    ],
)
def test_the_usual_answers_are_read(endpoint: str, answer: Any) -> None:
    answers(answer)
    assert WebSearch(endpoint).search("a deque?") == [("A deque & more", "It is a queue with two ends.")]
    assert Toolbox(WebSearch(endpoint))("search", "x") == "A deque & more: It is a queue with two ends."


def test_the_model_chooses_words_and_nothing_else(endpoint: str) -> None:
    answers([])
    query = "a&format=xml#/../\r\nHost: evil é\ud800 " + "x" * 5000
    assert WebSearch(endpoint, "secret").search(query) == []
    ((path, key),) = Endpoint.asked
    assert path.startswith("/search?format=json&q=a%26format%3Dxml%23%2F..%2F%20Host%3A%20evil%20%C3%A9%3F%20xxx")
    assert path.count("&") == 1 and len(path) < 500 and key == "Bearer secret"


@pytest.mark.parametrize(
    ("body", "status", "headers"),
    [
        (b"not json", 200, {}),
        (b"[" * 200_000, 200, {}),
        (b"\xff\xfe", 200, {}),
        (b'["' + b"x" * (2 << 20) + b'"]', 200, {}),
        (b"no", 500, {}),
        (b"no", 403, {}),
        (b"", 302, {"Location": "http://127.0.0.1:1/inside"}),
    ],
)
def test_answers_that_are_none_are_said_in_a_line(endpoint: str, body: bytes, status: int, headers: dict) -> None:
    answers(body, status, **headers)
    with pytest.raises(SearchFailed):
        WebSearch(endpoint).search("x")
    said = Toolbox(WebSearch(endpoint))("search", "x")
    assert said.startswith("the search failed: the search endpoint") and "\n" not in said
    assert len(Endpoint.asked) == 2  # nobody was redirected


@pytest.mark.parametrize("answer", [{}, {"results": []}, {"results": "x"}, {"results": {"results": {}}}, "x", 5, None])
def test_answers_without_results_found_nothing(endpoint: str, answer: Any) -> None:
    answers(answer)
    assert Toolbox(WebSearch(endpoint))("search", "x") == NOTHING


def test_a_slow_endpoint_is_left(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_SECONDS", -1.0)
    answers([])
    with pytest.raises(SearchFailed):
        WebSearch(endpoint).search("x")


def test_nobody_there_is_said() -> None:
    with pytest.raises(SearchFailed, match="gave no answer"):
        WebSearch("http://127.0.0.1:9/?q={query}").search("x")


@pytest.mark.parametrize(
    "template",
    [
        "",
        "search.example?q={query}",
        "ftp://search.example/{query}",
        "file:///etc/passwd?{query}",
        "https://search.example/",
        "https://{query}.example/",
        "https://search.example/{query}?q={query}",
        "https://key@search.example/?q={query}",
    ],
)
def test_what_is_no_endpoint_is_the_persons_mistake(template: str) -> None:
    with pytest.raises(UserError):
        WebSearch(template)


def test_it_is_off_unless_set(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(web.URL, raising=False)
    assert WebSearch.from_environment() is None and "not available" in Toolbox()("search", "x")
    monkeypatch.setenv(web.URL, endpoint)
    monkeypatch.setenv(web.KEY, "k")
    answers([{"title": "T", "text": "found"}])
    assert Toolbox(WebSearch.from_environment())("search", "x") == "T: found"
    assert Endpoint.asked[-1][1] == "Bearer k"
