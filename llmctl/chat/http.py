"""HTTP/1.1 for a server that faces whatever comes: h11 reads and writes the protocol, asyncio the sockets.

Every wait has an end. Whoever sends or takes its bytes too slowly, sends too many, or opens one connection too many is
told so and let go, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Limits:
    """Bytes and seconds. The defaults suit a server behind nothing."""

    header_bytes: int = 1 << 14
    body_bytes: int = 1 << 20
    connections: int = 1024
    request_seconds: float = 30.0
    """From a request's first byte to its last."""
    idle_seconds: float = 75.0
    """An open connection without a request."""
    write_seconds: float = 30.0
    """Until a client takes what was sent to it."""


class HttpError(Exception):
    """An answer that is no success, in OpenAI's form of an error."""

    def __init__(self, status: int, message: str, code: str = "", param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def body(self) -> bytes:
        """As JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code or None}
        return json.dumps({"error": error}).encode()


class Exchange:
    """One request and the way to answer it. `gone` is set once the client has left."""

    def __init__(self, connection: _Connection, request: h11.Request, body: bytes) -> None:
        self._connection = connection
        self.method, target = request.method.decode(), request.target.decode("ascii", "replace")
        self.path = target.partition("?")[0]
        self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in request.headers}
        self.body, self.gone = body, asyncio.Event()

    async def respond(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        """A whole answer."""
        await self._head(status, kind, {**headers, "content-length": str(len(body))})
        await self.send(b"" if self.method == "HEAD" else body)
        await self.end()

    async def begin(self, status: int, kind: str) -> None:
        """The head of an answer that comes in pieces, each by `send`, finished by `end`."""
        await self._head(status, kind, {"cache-control": "no-store"})

    async def send(self, data: bytes) -> None:
        """A piece of the body, once the client has taken enough of those before it."""
        if data:
            await self._connection.send(h11.Data(data=data))

    async def end(self) -> None:
        """Nothing more comes."""
        await self._connection.send(h11.EndOfMessage())

    async def _head(self, status: int, kind: str, headers: dict[str, str]) -> None:
        every = {"content-type": kind, "x-content-type-options": "nosniff", **headers}
        if status >= 400 and self._connection.must_close:
            every["connection"] = "close"
        pairs = [(k.replace("_", "-"), v) for k, v in every.items()]
        reason = HTTPStatus(status).phrase.encode()
        await self._connection.send(h11.Response(status_code=status, headers=pairs, reason=reason))


Handler = Callable[[Exchange], Awaitable[None]]


async def serve(handler: Handler, host: str, port: int, limits: Limits | None = None) -> asyncio.Server:
    """Listen. `handler` answers each exchange; it may raise HttpError before it has begun to."""
    found, chosen = Server(handler, limits or Limits()), limits or Limits()
    return await asyncio.start_server(found.client, host, port, limit=_CHUNK, backlog=min(chosen.connections, 1024))


class Server:
    """The connections that are open."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler, self.limits, self.open = handler, limits, 0

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its opening to its end."""
        self.open += 1
        connection = _Connection(reader, writer, self.limits)
        try:
            if self.open > self.limits.connections:
                await connection.refuse(HttpError(503, "too many connections", "overloaded"))
                return
            while await self._exchange(connection):
                pass
        except (OSError, h11.LocalProtocolError, asyncio.TimeoutError):
            pass  # the client has left, or takes nothing
        except asyncio.CancelledError:
            pass  # the server is being stopped; this is where the task began, so nobody above waits to hear of it
        finally:
            self.open -= 1
            connection.close()

    async def _exchange(self, connection: _Connection) -> bool:
        """Answer one request. False where the connection ends with it."""
        try:
            exchange = await connection.receive()
            if exchange is None:
                return False
        except HttpError as e:
            await connection.refuse(e)
            return False
        watch = asyncio.create_task(connection.watch(exchange.gone))
        try:
            await self._answer(exchange, connection)
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await watch
        return connection.next()

    async def _answer(self, exchange: Exchange, connection: _Connection) -> None:
        try:
            await self.handler(exchange)
        except HttpError as e:
            if connection.answering:
                raise ConnectionAbortedError from e
            extra = {"retry_after": "5"} if e.status in (429, 503) else {}
            await exchange.respond(e.status, e.body(), **extra)
        except (OSError, asyncio.TimeoutError):
            raise
        except Exception:
            if not connection.answering:
                await exchange.respond(500, HttpError(500, "a defect of the server; its log says more").body())
            raise


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> None:
        self.reader, self.writer, self.limits = reader, writer, limits
        self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)
        self.must_close = False
        writer.transport.set_write_buffer_limits(high=0)  # drain() then means: the kernel has it all

    @property
    def answering(self) -> bool:
        """Whether an answer has been begun, so that it is too late for another."""
        return self.h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE)

    async def receive(self) -> Exchange | None:
        """The next request, whole; None where the client has left or stayed idle. HttpError for what is none."""
        if not self.h11.trailing_data[0]:
            try:
                first = await asyncio.wait_for(self.reader.read(_CHUNK), self.limits.idle_seconds)
            except asyncio.TimeoutError:
                return None
            self.h11.receive_data(first)
        try:
            return await asyncio.wait_for(self._request(), self.limits.request_seconds)
        except asyncio.TimeoutError:
            raise HttpError(408, "the request took too long to arrive", "timeout") from None
        except h11.RemoteProtocolError as e:
            raise HttpError(e.error_status_hint, f"that is no HTTP request: {e}", "bad_request") from None

    async def _request(self) -> Exchange | None:
        request, body = None, bytearray()
        while True:
            event = await self._event()
            if isinstance(event, h11.Request):
                request = event
                length = dict(event.headers).get(b"content-length", b"0")
                self._check_size(int(length) if length.isdigit() else 0)
                if self.h11.they_are_waiting_for_100_continue:
                    await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            elif isinstance(event, h11.Data):
                body += event.data
                self._check_size(len(body))
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                return Exchange(self, request, bytes(body))
            else:  # closed
                return None

    def _check_size(self, size: int) -> None:
        if size > self.limits.body_bytes:
            most = self.limits.body_bytes
            raise HttpError(413, f"the body is larger than {most:,} bytes", "request_too_large")

    async def _event(self) -> Any:
        while (event := self.h11.next_event()) is h11.NEED_DATA:
            self.h11.receive_data(await self.reader.read(_CHUNK))
        return event

    async def watch(self, gone: asyncio.Event) -> None:
        """Set `gone` when the client closes. What it sends meanwhile is its next request, of which a chunk is taken."""
        try:
            data = await self.reader.read(_CHUNK)
        except OSError:
            data = b""
        if data:
            self.h11.receive_data(data)
        else:
            gone.set()

    async def send(self, event: Any) -> None:
        data = self.h11.send(event)
        if data:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), self.limits.write_seconds)

    async def refuse(self, error: HttpError) -> None:
        """Answer what was not read to its end, and take no more of it."""
        self.must_close = True
        if self.h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = error.body()
        status = HTTPStatus(error.status)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        self.writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await asyncio.wait_for(self.writer.drain(), self.limits.write_seconds)
        with contextlib.suppress(OSError, asyncio.TimeoutError):  # a reset would take the answer from a busy sender
            self.writer.write_eof()
            await asyncio.wait_for(self._discard(), 2.0)

    async def _discard(self) -> None:
        for _ in range(64):
            if not await self.reader.read(_CHUNK):
                return

    def next(self) -> bool:
        """Make ready for another request. False where the connection has to end."""
        if self.h11.our_state is not h11.DONE or self.h11.their_state is not h11.DONE:
            return False
        self.h11.start_next_cycle()
        return not self.reader.at_eof() or bool(self.h11.trailing_data[0])

    def close(self) -> None:
        if self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()  # it takes nothing: what is left would stay in memory for ever
        self.writer.close()
