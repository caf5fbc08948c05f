"""The thread that owns the model of a server: requests go in from any thread, their pieces come out as they are made.

New requests join at the next step as long as there is room, in the order in which they came. A tool call runs beside
the batch, which goes on without the request and takes it in again with the result.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from llmctl.generate.continuous import ContinuousBatch, Request
from llmctl.generate.control import ToolRunner
from llmctl.generate.engine import Engine
from llmctl.generate.text import Piece

Listener = Callable[[Piece | None], None]
"""Told of every piece, and None once the request has ended. Called in the scheduler's thread; must not block."""


class Busy(Exception):
    """As many requests wait as may."""


class Scheduler:
    """`rows` requests run at once, `waiting` more may wait. `close` ends the thread, and what runs as "cancelled"."""

    def __init__(self, engine: Engine, tools: ToolRunner | None, rows: int = 64, waiting: int = 512) -> None:
        self.engine, self.tools, self.rows, self.waiting = engine, tools, rows, waiting
        self.most = 0
        """The most requests that ran in one batch so far."""
        self._queue: deque[Request] = deque()
        self._listeners: dict[Request, tuple[Listener, int]] = {}
        self._answers: deque[tuple[Request, str]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)
        self._thread = threading.Thread(target=self._run, name="llmctl-engine", daemon=True)
        self._thread.start()

    def submit(self, requests: list[Request], listeners: list[Listener]) -> None:
        """Hand in. Busy where the queue has no room for all of them, AssertionError for what can never run."""
        with self._wake:
            if self._closed or len(self._queue) + len(requests) > self.waiting:
                raise Busy
            for request, listener in zip(requests, listeners, strict=True):
                self._listeners[request] = (listener, 0)
                self._queue.append(request)
            self._wake.notify()

    def cancel(self, request: Request) -> None:
        """Nobody waits for it any more: it leaves at the next step."""
        with self._wake:
            request.finish = request.finish or "cancelled"
            self._wake.notify()

    def close(self) -> None:
        """End the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        try:
            with self.engine.continuous() as batch:
                while self._admit(batch):
                    running = [row.request for row in batch.rows]
                    self.most = max(self.most, len(running))
                    for left in batch.step():
                        self._leave(left)
                    for request in running:
                        self._tell(request)
        finally:  # whether closed or broken by a defect: nobody may wait for ever
            with self._wake:
                self._closed = True
                for request in list(self._listeners):
                    request.finish = request.finish or "cancelled"
                    self._tell(request)

    def _admit(self, batch: ContinuousBatch) -> bool:
        """Wait for work and take it in. False once closed."""
        with self._wake:
            while not (self._closed or self._queue or self._answers or len(batch)):
                self._wake.wait()
            if self._closed:
                return False
            answered = [self._answers.popleft() for _ in range(len(self._answers))]
            for request, result in answered:
                batch.answer(request, result)
            back = [request for request, _ in answered]
            joining = [r for r in back if not r.finish]
            while self._queue and len(batch) + len(joining) < self.rows:
                request = self._queue.popleft()
                (joining if not request.finish else back).append(request)
        for request in back:
            self._tell(request)
        batch.join(joining)
        return True

    def _leave(self, request: Request) -> None:
        if request.call and not request.finish:
            self._pool.submit(self._call, request, *request.call)

    def _call(self, request: Request, tool: str, text: str) -> None:
        result = "the tool failed"
        try:
            result = self.tools(tool, text) if self.tools else "there are no tools"
        finally:
            with self._wake:
                self._answers.append((request, result))
                self._wake.notify()

    def _tell(self, request: Request) -> None:
        """Hand on the pieces that its listener does not have yet, and the end."""
        if request not in self._listeners:
            return
        listener, told = self._listeners[request]
        for piece in request.pieces[told:]:
            listener(piece)
        self._listeners[request] = (listener, len(request.pieces))
        if request.finish:
            del self._listeners[request]
            listener(None)
