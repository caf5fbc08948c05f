"""`/v1/chat/completions` of any server that speaks the OpenAI protocol: retries, waits, many at once."""

from __future__ import annotations

import ipaddress
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from llmctl.endpoint.post import Passing, Poster, Refused, Unreachable
from llmctl.endpoint.threads import as_they_come
from llmctl.endpoint.writer import ChatSampling, Conversation, Reply, said, seeds_of
from llmctl.errors import UserError

_PATH = "/chat/completions"
_LONGEST_WAIT = 300.0  # who is asked to wait longer has run out of a quota, not into a limit of its rate
_BACKOFF, _MOST_BACKOFF = 1.0, 60.0
_GIVE_UP = 12  # so many failures in a row, each tried several times, are an outage and not bad luck
_CHARS_A_TOKEN = 4  # of English, with vocabularies of 50,000 to 200,000; used where a server counts nothing


class Endpoint:
    """A `Writer` at `url` (".../v1"). `key` goes into the Authorization header, over https or to this machine only."""

    batch = 1

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        *,
        concurrency: int = 8,
        timeout: float = 120.0,
        attempts: int = 6,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.url, self.model = _checked(url, key), model
        self.concurrency, self.attempts = concurrency, attempts
        self._extra = dict(extra or {})
        self._poster = Poster(self.url, key, concurrency, timeout)
        self._gate = _Gate()
        self._reached = False
        self._limit = "max_tokens"

    def who(self) -> dict[str, Any]:
        """The address and the model's name, without the key."""
        return {"endpoint": self.url.removesuffix(_PATH), "model": self.model}

    def chat(self, messages: Conversation, sampling: ChatSampling = ChatSampling()) -> str:
        """The reply to one conversation. UserError where none comes."""
        return said(self.ask(messages, sampling, sampling.seed), self.url)

    def answers(
        self,
        conversations: Sequence[Conversation],
        sampling: ChatSampling = ChatSampling(),
        seeds: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, Reply]]:
        """(place, reply) as they come. UserError after a dozen failures in a row: then it is not the question's."""
        each = seeds_of(conversations, sampling, seeds)
        failures = 0
        for i, reply in as_they_come(
            lambda i: self.ask(conversations[i], sampling, each[i]), len(conversations), self.concurrency
        ):
            yield i, reply
            failures = failures + 1 if reply.why else 0
            if failures >= _GIVE_UP:
                raise UserError(
                    f"{failures} requests in a row have failed, the last one: {reply.why}",
                    self.url,
                    "what has come is kept: run the same command again to go on",
                )

    def ask(self, messages: Conversation, sampling: ChatSampling, seed: int) -> Reply:
        """One reply, with its retries. UserError for what no other request would change either."""
        why = ""
        for attempt in range(self.attempts):
            self._gate.wait()
            try:
                return self._once(messages, sampling, seed)
            except Refused as e:
                if e.status in (401, 403, 404):
                    raise UserError(str(e), self.url, _FIXES[e.status]) from None
                return Reply.failed(str(e))
            except (Passing, Unreachable) as e:
                self._reached = self._reached or isinstance(e, Passing)
                why, after = str(e), self._after(e, attempt)
            if attempt + 1 < self.attempts:
                time.sleep(after)
        return Reply.failed(f"{why} ({self.attempts} tries)", lasting=False)

    def _after(self, e: Passing | Unreachable, attempt: int) -> float:
        """Seconds to wait before the next try; who is asked to wait makes all the others wait too."""
        if isinstance(e, Unreachable) and not self._reached:
            raise UserError(f"nobody answers: {e}", self.url, "is the server running, and the address right?") from None
        asked = e.after if isinstance(e, Passing) else None
        if "insufficient_quota" in str(e) or (asked or 0) > _LONGEST_WAIT:
            raise UserError(str(e), self.url, "the quota is used up; run the same command again once there is one")
        if asked is not None:
            self._gate.close_for(asked)
            return asked
        # Full jitter (AWS, "Exponential backoff and jitter"): clients that failed together do not come back together.
        return min(_MOST_BACKOFF, _BACKOFF * 2**attempt) * random.uniform(0.5, 1.0)

    def _once(self, messages: Conversation, sampling: ChatSampling, seed: int) -> Reply:
        try:
            found = self._poster.post(self._body(messages, sampling, seed))
        except Refused as e:
            # OpenAI's reasoning models know only the newer name, most other servers only the older one.
            if e.status != 400 or self._limit != "max_tokens" or "max_completion_tokens" not in str(e):
                raise
            self._limit = "max_completion_tokens"
            found = self._poster.post(self._body(messages, sampling, seed))
        self._reached = True
        return _reply(found, messages)

    def _body(self, messages: Conversation, sampling: ChatSampling, seed: int) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": [{"role": m["role"], "content": plain(m["content"])} for m in messages],
            self._limit: sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed % 2**31,
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
            **self._extra,
        }
        return {k: v for k, v in body.items() if v is not None}


class _Gate:
    """Holds everybody back until a time."""

    def __init__(self) -> None:
        self._opens, self._lock = 0.0, threading.Lock()

    def close_for(self, seconds: float) -> None:
        with self._lock:
            self._opens = max(self._opens, time.monotonic() + seconds)

    def wait(self) -> None:
        while (left := self._opens - time.monotonic()) > 0:
            time.sleep(left)


_FIXES = {
    401: "set the environment variable that endpoint.key_env names to a valid key",
    403: "the key may not use this model",
    404: "the address of an OpenAI-compatible server usually ends in /v1; is the model's name right?",
}


def plain(content: Any) -> str:
    """The words of a message's content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(p.get("text", "") for p in content if isinstance(p, Mapping))


def token_estimate(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text) // _CHARS_A_TOKEN)


def _reply(found: Any, messages: Conversation) -> Reply:
    try:
        choice = found["choices"][0]
        message = choice["message"]
        text, reasoning = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
        usage = found.get("usage") or {}
        counted = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Passing("the answer is no chat completion") from None
    text = _text(plain(text) if isinstance(text, (str, list)) else "")
    asked = sum(token_estimate(plain(m["content"])) for m in messages)
    tokens_in, tokens_out = (
        c if isinstance(c, int) and c >= 0 else g for c, g in zip(counted, (asked, token_estimate(text)), strict=True)
    )
    finish = "length" if choice.get("finish_reason") == "length" else "stop"
    return Reply(text, finish, _text(reasoning) if isinstance(reasoning, str) else "", tokens_in, tokens_out)


def _text(text: str) -> str:
    """JSON can spell half a surrogate pair, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _checked(url: str, key: str) -> str:
    parts = urlsplit(url.strip())
    try:
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known or re.search(r"[\s\x00-\x1f]", url.strip()):
        raise UserError(f"{url!r} is no address of an endpoint", fix="e.g. http://localhost:8000/v1")
    if key and parts.scheme == "http" and not _is_here(parts.hostname or ""):
        raise UserError("a key would travel in the clear over http", url, "use https, or leave the key out")
    if not key.isascii() or not key.isprintable():
        raise UserError("the key has characters that no key has", fix="was it copied whole, without a line break?")
    base = url.strip().rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
