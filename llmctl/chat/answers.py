"""One reply of the server as it grows: what of its tokens is the model's words, and the JSON of its pieces.

Tool calls and their results are no part of the text that a client of OpenAI's protocol shows. They come beside it, in a
field of our own that such clients pass over, so that a page can show what was looked up or computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmctl.chat.turn import content_of, words_of
from llmctl.generate.continuous import Request
from llmctl.generate.text import Piece
from llmctl.model.chat_format import WRAPS
from llmctl.model.tokenizer import Tokenizer


@dataclass
class Answer:
    """Choice number `index` of a response. `chats`: tool calls are told apart from words."""

    index: int
    request: Request
    tokenizer: Tokenizer
    chats: bool
    text: str = ""
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    within: str = ""
    """The kind of the tool call or result that is being written."""
    _told: int = 0

    def push(self, piece: Piece) -> tuple[str, str]:
        """(words, tool text) that `piece` adds."""
        if self.chats:
            opening = {self.tokenizer.specials.get(w[0]): kind for kind, w in WRAPS.items() if w[0]}
            if piece.id in opening:
                self.within = opening[piece.id]
                return "", ""
            if piece.id in {self.tokenizer.specials.get(w[1]) for w in WRAPS.values() if w[1]}:
                self.within = ""
                return "", ""
        if self.within:
            return "", piece.text
        words = piece.text.lstrip() if self.chats and not self.text else piece.text
        self.text += words
        if not piece.forced and piece.id not in self.tokenizer.specials.values():
            data = self.tokenizer.token_bytes(piece.id)
            token = data.decode("utf-8", "replace")
            self.logprobs.append({"token": token, "logprob": piece.logprob, "bytes": list(data), "top_logprobs": []})
        return words, ""

    def fresh(self) -> list[dict[str, Any]]:
        """The log-probabilities since the last call. A piece of text may hold several tokens: halves of a character."""
        found = self.logprobs[self._told :]
        self._told = len(self.logprobs)
        return found

    @property
    def finish(self) -> str:
        """OpenAI's word for how it ended."""
        return "stop" if self.request.finish == "stop" else "length"

    def content(self) -> Any:
        """As conversations hold it, with tool calls."""
        cut = self.text if self.request.sampling.stop_strings else None
        return content_of(self.request.ids, self.tokenizer, cut) if self.chats else self.text

    def words(self) -> str:
        """What is said."""
        return words_of(self.content()) if self.chats else self.text


def usage(prompts: list[list[int]], answers: list[Answer]) -> dict[str, int]:
    """OpenAI's count of tokens."""
    asked, made = sum(map(len, prompts)), sum(len(a.request.pieces) for a in answers)
    return {"prompt_tokens": asked, "completion_tokens": made, "total_tokens": asked + made}


def chat_choice(answer: Answer, logprobs: bool) -> dict[str, Any]:
    """A choice of `/v1/chat/completions`."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.words(), "refusal": None}
    content = answer.content()
    if not isinstance(content, str):
        message["parts"] = content
    given = {"content": answer.logprobs, "refusal": None} if logprobs else None
    return {"index": answer.index, "message": message, "logprobs": given, "finish_reason": answer.finish}


def chat_delta(answer: Answer, words: str, tool: str, kind: str, logprobs: bool, first: bool) -> dict[str, Any]:
    """A piece of a choice. `kind`: of the tool text."""
    delta: dict[str, Any] = {"role": "assistant", "content": words} if first else {"content": words}
    if tool:
        delta["tool"] = {"type": kind, "text": tool}
    given = {"content": answer.fresh(), "refusal": None} if logprobs and words else None
    return {"index": answer.index, "delta": delta, "logprobs": given, "finish_reason": None}


def chat_end(answer: Answer, logprobs: bool) -> dict[str, Any]:
    """The last piece of a choice."""
    given = {"content": answer.fresh(), "refusal": None} if logprobs else None
    return {"index": answer.index, "delta": {}, "logprobs": given, "finish_reason": answer.finish}


def text_choice(answer: Answer, text: str, logprobs: bool, finish: str | None) -> dict[str, Any]:
    """A choice of `/v1/completions`, or a piece of one."""
    found = answer.fresh() if logprobs else []
    given = {
        "tokens": [p["token"] for p in found],
        "token_logprobs": [p["logprob"] for p in found],
        "top_logprobs": None,
        "text_offset": None,
    }
    return {"index": answer.index, "text": text, "logprobs": given if logprobs else None, "finish_reason": finish}
