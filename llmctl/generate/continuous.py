"""Continuous batching (Orca, OSDI 2022): requests join a running batch and leave it, each with settings of its own.

Where `Batch` writes all its rows from the same first step, here every row has its own beginning, sampling, noise and
end. A request's tokens are those that `Engine.generate` gives it alone, up to the rounding of products of another size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llmctl.generate.cache import KVCache
from llmctl.generate.control import closed_call, result_ids, stop_ids, tool_tokens
from llmctl.generate.decoder import Decoder
from llmctl.generate.prefill import prefill
from llmctl.generate.sampling import Sampling, choose, row_keys, uniforms
from llmctl.generate.text import Piece, TextPieces


@dataclass(eq=False)
class Request:
    """One sample to be made of `prompt` (token ids, fewer than the context). `tools`: its tool calls are run.

    What was made so far is in `pieces`; `finish` is "" until it ends with "stop", "length" or "cancelled".
    """

    prompt: list[int]
    sampling: Sampling
    sample: int = 0
    tools: bool = False
    pieces: list[Piece] = field(default_factory=list)
    finish: str = ""
    call: tuple[str, str] | None = None
    """(tool, text) of a call whose result it waits for, outside of the batch; `answer` gives it."""

    @property
    def ids(self) -> list[int]:
        """The new tokens, forced ones and the stop token included."""
        return [p.id for p in self.pieces]


class ContinuousBatch:
    """The requests in flight. `join` takes some in, `step` writes one token into each and returns those that left.

    Not to be called from two threads at once.
    """

    def __init__(self, decoder: Decoder, tokenizer: Any) -> None:
        self.decoder, self.model, self.tokenizer = decoder, decoder.model, tokenizer
        self.device, self.dtype = decoder.device, decoder.dtype
        self.context = int(decoder.config.context)
        self.calls = tool_tokens(tokenizer)
        self.rows: list[_Row] = []
        self._cache: KVCache | None = None
        self._logits: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @torch.inference_mode()
    def join(self, requests: Sequence[Request]) -> None:
        """Take `requests` in: new ones, and those that come back with the result of a tool."""
        rows = [_Row(r, self.tokenizer, self.context) for r in requests]
        if not rows:
            return
        cache, logits = prefill(self.model, [[*r.prompt, *r.ids] for r in requests])
        if self._cache is None:
            self._cache, self._logits = cache, logits
        else:
            self._cache.join(cache)
            self._logits = torch.cat([self._logits, logits])
        self.rows += rows

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """One token for every row. Returns the requests that left: ended, cancelled, or with a `call` to be run."""
        if not self.rows:
            return []
        new, logprobs = self._draw()
        for row, token, logprob in zip(self.rows, new.tolist(), logprobs.tolist(), strict=True):
            row.take(token, logprob, self.calls)
        stays = [not row.left for row in self.rows]  # looked at once: another thread may cancel at any time
        left = [row.request for row, stay in zip(self.rows, stays, strict=True) if not stay]
        if left:
            new = self._drop(stays, new)
        if self.rows:
            assert self._cache is not None
            self._logits = self.decoder.step(new.to(self.device), self._cache)
        return left

    def answer(self, request: Request, result: str) -> None:
        """Put the result of its `call` into `request`, which may then join again unless that has ended it."""
        request.call = None
        row = _Row(request, self.tokenizer, self.context)
        for token in result_ids(self.tokenizer, result):
            if not request.finish:
                row.take(token, 0.0, self.calls, forced=True)

    def _draw(self) -> tuple[Tensor, Tensor]:
        """(B,) ids and log-probabilities, in one go for all rows that sample alike."""
        alike: dict[Any, list[int]] = {}
        for i, row in enumerate(self.rows):
            s = row.request.sampling
            alike.setdefault((s.temperature, s.top_k, s.top_p, s.min_p, s.repetition_penalty), []).append(i)
        ids = torch.zeros(len(self.rows), dtype=torch.int64)
        logprobs = torch.zeros(len(self.rows))
        for places in alike.values():
            rows = [self.rows[i] for i in places]
            noise = torch.cat([uniforms(r.key, len(r.request.pieces)) for r in rows])
            logits = self._logits if len(alike) == 1 else self._logits[torch.tensor(places, device=self.device)]
            drawn, scores = choose(logits, rows[0].request.sampling, noise, self._seen(rows))
            ids[places], logprobs[places] = drawn.cpu(), scores.float().cpu()
        return ids, logprobs

    def _seen(self, rows: list[_Row]) -> Tensor | None:
        if rows[0].request.sampling.repetition_penalty == 1:
            return None
        seen = torch.zeros(len(rows), self.model.config.vocab_size, dtype=torch.bool)
        for mine, row in zip(seen, rows, strict=True):
            mine[torch.tensor([*row.request.prompt, *row.request.ids])] = True
        return seen.to(self.device)

    def _drop(self, stays: list[bool], new: Tensor) -> Tensor:
        """Take the rows that left out of the cache: the last ones move into their places. Returns `new` likewise."""
        assert self._cache is not None
        going = [i for i, stay in enumerate(stays) if stay]
        order = list(range(len(going)))
        holes = [i for i in order if not stays[i]]
        movers = [i for i in going if i >= len(going)]
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        self.rows = [self.rows[i] for i in order]
        if self.rows:
            self._cache.shrink(
                torch.tensor(holes, dtype=torch.int64), torch.tensor(movers, dtype=torch.int64), len(order)
            )
        else:
            self._cache = None
        return new[_places(order)]


def _places(indices: list[int]) -> Tensor:
    return torch.tensor(indices, dtype=torch.int64)


class _Row:
    """A request's place in the batch: its noise, and what ends it."""

    def __init__(self, request: Request, tokenizer: Any, context: int) -> None:
        assert len(request.prompt) < context, "the prompt leaves no room"
        self.request, self.tokenizer = request, tokenizer
        self.key = row_keys(request.sampling.seed, [(0, request.sample)])
        self.limit = min(request.sampling.max_new_tokens, context - len(request.prompt))
        self.stops = set(stop_ids(tokenizer, request.sampling))
        self.text = TextPieces(request.sampling.stop_strings)
        for piece in request.pieces:  # one that comes back has said something already
            self.text.push(tokenizer.token_bytes(piece.id))

    @property
    def left(self) -> bool:
        return bool(self.request.finish or self.request.call)

    def take(self, token: int, logprob: float, calls: dict[int, tuple[str, int]], forced: bool = False) -> None:
        request = self.request
        if request.finish:  # cancelled meanwhile
            return
        ended = token in self.stops and not forced
        last = ended or len(request.pieces) + 1 >= self.limit
        shown = self.text.push(b"" if ended else self.tokenizer.token_bytes(token), final=last)
        request.pieces.append(Piece(token, forced, logprob, shown))
        if ended or self.text.stopped:
            request.finish = "stop"
        elif last:
            request.finish = "length"
        elif request.tools and not forced:
            request.call = closed_call(self.tokenizer, calls, request.ids)
