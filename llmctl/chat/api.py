"""The server's pages and endpoints: OpenAI's three, one to judge answers, and the page to talk."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

from llmctl.chat import feedback
from llmctl.chat.answers import Answer, chat_choice, chat_delta, chat_end, text_choice, usage
from llmctl.chat.config import ChatConfig
from llmctl.chat.http import Exchange, HttpError
from llmctl.chat.log import Log, Turn
from llmctl.chat.protocol import Ask, body_of, chat_ask, completion_ask
from llmctl.chat.speaker import Speaker
from llmctl.errors import UserError
from llmctl.generate.continuous import Request
from llmctl.generate.scheduler import Busy, Scheduler
from llmctl.generate.text import Piece
from llmctl.workspace import Workspace

# The page may run its own script and talk to its own server, nothing else.
_PAGE_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'"
STOPPING = "the server is being stopped"
_LOOK, _FAREWELL = 0.02, 2.0  # seconds: between looks at what is still being answered; to tell clients of the end
LOCAL = ("localhost", "127.0.0.1", "::1")


class Api:
    """Answers exchanges. `key` empty: none is asked for, and only a browser page of this very server may ask."""

    def __init__(
        self,
        workspace: Workspace,
        config: ChatConfig,
        speaker: Speaker,
        scheduler: Scheduler,
        log: Log | None,
        key: str,
    ) -> None:
        self.workspace, self.config, self.speaker, self.scheduler = workspace, config, speaker, scheduler
        self.log, self.key = log, key
        self.began = int(time.time())
        self.going, self.stopping = 0, False
        self.page = resources.files("llmctl.chat").joinpath("page.html").read_bytes()

    async def __call__(self, exchange: Exchange) -> None:
        """The answer to one request."""
        if self.stopping:
            raise HttpError(503, STOPPING, "overloaded")
        self.going += 1
        try:
            await self._respond(exchange)
        finally:
            self.going -= 1

    async def finish(self, seconds: float, now: asyncio.Event) -> None:
        """Take nothing more, and end when what is being answered is: after `seconds`, or `now`, it is cut off."""
        self.stopping, loop = True, asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.going and not now.is_set() and loop.time() < deadline:
            await asyncio.sleep(_LOOK)
        await asyncio.to_thread(self.scheduler.close)
        deadline = loop.time() + _FAREWELL
        while self.going and loop.time() < deadline:
            await asyncio.sleep(_LOOK)

    async def _respond(self, exchange: Exchange) -> None:
        self._check_origin(exchange)
        if exchange.path in ("/", "/health") and exchange.method in ("GET", "HEAD"):
            await self._open(exchange)
            return
        self._check_key(exchange)
        if exchange.path.startswith("/v1/models"):
            await self._models(exchange)
            return
        actions = {
            "/v1/chat/completions": self._chat, "/v1/completions": self._complete, "/feedback": self._judge,
        }  # fmt: skip
        action = actions.get(exchange.path)
        if action is None:
            raise HttpError(404, f"nothing at {exchange.path[:100]}", "not_found")
        if exchange.method != "POST":
            raise HttpError(405, f"{exchange.path} takes POST", "method_not_allowed")
        await action(exchange)

    async def _open(self, exchange: Exchange) -> None:
        if exchange.path == "/health":
            await exchange.respond(200, b'{"status": "ok"}')
        else:
            policy = {"content_security_policy": _PAGE_POLICY, "cache_control": "no-store"}
            await exchange.respond(200, self.page, "text/html; charset=utf-8", **policy)

    async def _models(self, exchange: Exchange) -> None:
        model = {"id": self.speaker.name, "object": "model", "created": self.began, "owned_by": "llmctl",
                 "max_model_len": self.speaker.context, "chats": self.speaker.chats}  # fmt: skip
        name = exchange.path.removeprefix("/v1/models").strip("/")
        if name and name != self.speaker.name:
            raise HttpError(404, f"there is no model {name[:100]!r}", "model_not_found")
        await self._json(exchange, model if name else {"object": "list", "data": [model]})

    async def _chat(self, exchange: Exchange) -> None:
        ask = await asyncio.to_thread(chat_ask, body_of(exchange.body), self.speaker, self.config)
        await self._generate(exchange, ask, "chat.completion")

    async def _complete(self, exchange: Exchange) -> None:
        ask = await asyncio.to_thread(completion_ask, body_of(exchange.body), self.speaker, self.config)
        await self._generate(exchange, ask, "text_completion")

    async def _generate(self, exchange: Exchange, ask: Ask, kind: str) -> None:
        chats = kind == "chat.completion"
        requests = [
            Request(p, ask.sampling, s, tools=chats and self.speaker.tools is not None)
            for p in ask.prompts
            for s in range(ask.n)
        ]
        answers = [Answer(i, r, self.speaker.tokenizer, chats) for i, r in enumerate(requests)]
        head = {"id": f"{'chatcmpl' if chats else 'cmpl'}-{secrets.token_hex(12)}", "object": kind,
                "created": int(time.time()), "model": self.speaker.name}  # fmt: skip
        pieces = _Pieces(self.scheduler, requests, exchange.gone)
        try:
            if ask.stream:
                await self._stream(exchange, ask, head, answers, pieces)
            else:
                async for answer, piece in pieces.of(answers):
                    answer.push(piece)
        finally:
            pieces.close()
            await asyncio.to_thread(self._note, ask, answers)
        if not ask.stream and not exchange.gone.is_set():
            await self._json(exchange, self._whole(ask, head, answers))

    def _whole(self, ask: Ask, head: dict[str, Any], answers: list[Answer]) -> dict[str, Any]:
        if head["object"] == "chat.completion":
            choices = [chat_choice(a, ask.logprobs) for a in answers]
        else:
            echo = ask.echo or [""] * len(ask.prompts)
            choices = [text_choice(a, echo[a.index // ask.n] + a.text, ask.logprobs, a.finish) for a in answers]
        return {
            **head,
            "choices": choices,
            "usage": usage(ask.prompts, answers),
            "system_fingerprint": self.speaker.digest[:16],
        }

    async def _stream(
        self, exchange: Exchange, ask: Ask, head: dict[str, Any], answers: list[Answer], pieces: _Pieces
    ) -> None:
        chats = head["object"] == "chat.completion"
        head = {**head, "object": "chat.completion.chunk" if chats else head["object"]}
        await exchange.begin(200, "text/event-stream; charset=utf-8")

        async def event(choices: list[Any], **more: Any) -> None:
            given = json.dumps({**head, "choices": choices, **more}, ensure_ascii=False)
            await exchange.send(f"data: {given}\n\n".encode())

        for a in answers:
            if chats:
                await event([chat_delta(a, "", "", "", False, True)])
            elif ask.echo:
                await event([text_choice(a, ask.echo[a.index // ask.n], False, None)])
        try:
            async for a, piece in pieces.of(answers):
                words, tool = a.push(piece)
                if words or tool:
                    if chats:
                        await event([chat_delta(a, words, tool, a.within, ask.logprobs, False)])
                    else:
                        await event([text_choice(a, words, ask.logprobs, None)])
                if a.request.finish and piece is a.request.pieces[-1]:
                    await event([chat_end(a, ask.logprobs) if chats else text_choice(a, "", ask.logprobs, a.finish)])
        except HttpError as e:  # too late for a status: OpenAI's clients raise for an event like this
            await exchange.send(b"data: " + e.body() + b"\n\n")
            await exchange.end()
            return
        if exchange.gone.is_set():
            return
        if ask.usage:
            await event([], usage=usage(ask.prompts, answers))
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()

    async def _judge(self, exchange: Exchange) -> None:
        """`{"messages": [...]}` keeps a conversation (an answer that is right, or was put right); with `"responses"`
        and `"ranking"`, a comparison of answers to the messages.
        """
        if self.log is None:
            raise HttpError(400, "nothing is kept: the server runs with log=false", "no_log")
        body = body_of(exchange.body)
        try:
            made = await asyncio.to_thread(self._keep, body)
        except UserError as e:
            raise HttpError(400, e.message(), "invalid_value") from None
        await self._json(exchange, made)

    def _keep(self, body: dict[str, Any]) -> dict[str, Any]:
        assert self.log is not None
        messages = body.get("messages")
        if not isinstance(messages, list):
            raise UserError("messages should be a list")
        if "responses" in body:
            responses, ranking = body["responses"], body.get("ranking")
            if not (isinstance(responses, list) and all(isinstance(r, str) for r in responses)):
                raise UserError("responses should be a list of texts")
            if not (isinstance(ranking, list) and all(type(r) is int for r in ranking)):
                raise UserError("ranking should be a list of ranks, 0 for the best")
            kind, name, row = "comparisons", self.config.choices, feedback.comparison(messages, responses, ranking)
        else:
            kind, name, row = "conversations", self.config.corrections, feedback.conversation(messages)
        feedback.keep(self.log, kind, name, row)
        made = feedback.publish(self.workspace, self.config, self.log, kind, name)
        return {"kept": f"{kind}/{name}", "rows": made.figures[kind] if made else 0}

    def _note(self, ask: Ask, answers: list[Answer]) -> None:
        if self.log is None:
            return
        for a in answers:
            r = a.request
            if not r.pieces:
                continue
            chat = self.log.begin("serve", self.speaker)
            said = [*ask.messages, {"role": "assistant", "content": a.content()}] if a.chats else a.text
            turn = Turn(r.prompt, r.sampling, r.sample, r.ids, a.content(), r.finish, r.tools)
            self.log.add(chat, self.speaker, turn, said if isinstance(said, list) else [])

    async def _json(self, exchange: Exchange, value: Any) -> None:
        await exchange.respond(200, json.dumps(value, ensure_ascii=False).encode())

    def _check_key(self, exchange: Exchange) -> None:
        given = exchange.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self.key and not hmac.compare_digest(given.encode(), self.key.encode()):
            raise HttpError(401, "the key is missing or wrong: send Authorization: Bearer KEY", "invalid_api_key")

    def _check_origin(self, exchange: Exchange) -> None:
        """Without a key, any web page in this machine's browser could talk to the model: only our own may.

        A foreign page is told by its Origin; one that has made its own name point here (DNS rebinding) by the Host.
        """
        if self.key:
            return
        host = exchange.headers.get("host", "")
        origin = exchange.headers.get("origin")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name.strip("[]") not in LOCAL or (origin is not None and origin.partition("://")[2] != host):
            raise HttpError(403, "without a key only this machine and this server's own page may ask", "forbidden")


class _Pieces:
    """The pieces of several requests in one stream, from the scheduler's thread into this one."""

    def __init__(self, scheduler: Scheduler, requests: list[Request], gone: asyncio.Event) -> None:
        self._scheduler, self._requests, self._gone = scheduler, requests, gone
        self._queue: asyncio.Queue[tuple[int, Piece | None]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def listener(index: int) -> Any:
            return lambda piece: loop.call_soon_threadsafe(self._queue.put_nowait, (index, piece))

        try:
            scheduler.submit(requests, [listener(i) for i in range(len(requests))])
        except Busy:
            raise HttpError(503, "too many requests wait already; try again in a moment", "overloaded") from None

    async def of(self, answers: list[Answer]) -> AsyncIterator[tuple[Answer, Piece]]:
        """(answer, piece) until all have ended or the client has left. HttpError where the engine has broken."""
        going = len(answers)
        left = asyncio.create_task(self._gone.wait())
        try:
            while going:
                take = asyncio.create_task(self._queue.get())
                await asyncio.wait({take, left}, return_when=asyncio.FIRST_COMPLETED)
                if not take.done():
                    take.cancel()
                    return
                index, piece = take.result()
                if piece is not None:
                    yield answers[index], piece
                elif answers[index].request.finish == "cancelled":
                    raise HttpError(503, STOPPING, "overloaded")
                else:
                    going -= 1
        finally:
            left.cancel()

    def close(self) -> None:
        """Nobody takes any further piece."""
        for request in self._requests:
            if not request.finish:
                self._scheduler.cancel(request)
