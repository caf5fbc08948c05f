"""A server that speaks the OpenAI protocol, and misbehaves on request."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

Answer = Callable[[dict[str, Any]], "str | dict[str, Any] | int | bytes"]


class FakeEndpoint:
    """`answer(body)` gives the reply's text, a whole JSON answer, an HTTP status, or raw bytes instead of JSON.

    `failures` are used up first, one a request: ("status", code, headers), ("cut",), ("slow", seconds), ("raw", bytes).
    """

    def __init__(self, answer: Answer = lambda body: "yes") -> None:
        self.answer, self.failures, self.asked = answer, [], []
        self.keys: list[str] = []
        self.times: list[float] = []
        self.most = self.now = 0
        self.delay = 0.0
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _serve(self, h: http.server.BaseHTTPRequestHandler) -> None:
        body = json.loads(h.rfile.read(int(h.headers["Content-Length"])))
        with self._lock:
            self.asked.append(body)
            self.keys.append(h.headers.get("Authorization", ""))
            self.times.append(time.monotonic())
            failure = self.failures.pop(0) if self.failures else None
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            time.sleep(self.delay)
            self._failure(h, *failure) if failure else self._reply(h, body)
        except OSError:
            pass
        finally:
            with self._lock:
                self.now -= 1

    def _failure(self, h: http.server.BaseHTTPRequestHandler, how: str, what: Any = None, headers: Any = None) -> None:
        if how == "status":
            _send(h, what, json.dumps({"error": {"message": "not now"}}).encode(), headers)
        elif how == "cut":
            h.send_response(200)
            h.send_header("Content-Length", "1000")
            h.end_headers()
            h.wfile.write(b'{"choices": [')
            h.wfile.flush()
            h.connection.shutdown(socket.SHUT_RDWR)
            h.close_connection = True
        elif how == "slow":
            time.sleep(what)
            _send(h, 200, b"{}", None)
        else:
            _send(h, 200, what, None)

    def _reply(self, h: http.server.BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        found = self.answer(body)
        if isinstance(found, int):
            _send(h, found, json.dumps({"error": {"message": "no such thing", "code": "bad"}}).encode(), None)
        elif isinstance(found, bytes):
            _send(h, 200, found, None)
        else:
            _send(h, 200, json.dumps(completion(found) if isinstance(found, str) else found).encode(), None)


def completion(text: str | None, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def _send(h: http.server.BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None) -> None:
    h.send_response(status)
    h.send_header("Content-Length", str(len(body)))
    for name, value in (headers or {}).items():
        h.send_header(name, value)
    h.end_headers()
    h.wfile.write(body)
