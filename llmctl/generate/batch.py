"""A batch in flight: prompts prefilled once, rows written one token a step, finished rows dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmctl.generate.cache import KVCache
from llmctl.generate.control import Control, ToolRunner
from llmctl.generate.decoder import Decoder
from llmctl.generate.prefill import prefill
from llmctl.generate.sampling import Sampling, choose, row_keys, uniforms
from llmctl.generate.scoring import common_length

# A prefill pass takes in at most so many tokens, and so many of padding: running those costs about what another pass,
# which reads all weights once more, would cost. (64 prompts of 32 to 64 tokens: a quarter less time than in one pass.)
_PASS, _PADDING = 4096, 64
# Columns that a fresh cache has beyond its prompts; it grows when an answer is longer.
_ROOM = 512
# Steps whose noise is made at once: numpy takes as long for one step of one row.
_STEPS = 32


class Batch:
    """`rows` = (prompt, sample) pairs over `prompts` (ragged ids, each shorter than the context).

    After each `step()`, row r of `ids`, `forced` and `logprobs` (N, max_new_tokens) holds `length[r]` new tokens;
    `stopped[r]` says that it ended by itself.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Any,
        prompts: list[list[int]],
        rows: list[tuple[int, int]],
        sampling: Sampling,
        tools: ToolRunner | None,
    ) -> None:
        self.decoder, self.model, self.sampling = decoder, decoder.model, sampling
        self.device, self.dtype = decoder.device, decoder.dtype
        self.context = int(decoder.config.context)
        used = sorted({p for p, _ in rows})
        place = {p: i for i, p in enumerate(used)}
        lengths = np.array([len(prompts[p]) for p, _ in rows])
        self.limit = np.minimum(sampling.max_new_tokens, self.context - lengths)
        size = (len(rows), int(self.limit.max()))
        self.ids = np.zeros(size, dtype=np.int64)
        self.forced = np.zeros(size, dtype=bool)
        self.logprobs = np.zeros(size, dtype=np.float32)
        self.length = np.zeros(len(rows), dtype=np.int64)
        self.stopped = np.zeros(len(rows), dtype=bool)
        self.control = Control(tokenizer, sampling, tools, self.ids)
        self.keys = row_keys(sampling.seed, [(p + sampling.first, s) for p, s in rows])
        self.live = np.arange(len(rows))
        """The rows that still go on, in the order in which the cache holds them."""
        self.at = 0
        self.logits: Tensor
        self.uniforms: Tensor
        self.seen: Tensor | None
        self._prefill([prompts[p] for p in used], [place[p] for p, _ in rows])

    @torch.inference_mode()
    def step(self) -> bool:
        """Write one token into every row that goes on. False once all have ended."""
        drawn, scores = choose(self.logits, self.sampling, self._noise(), self.seen)
        new = drawn.cpu().numpy()
        done = self._record(new, scores.cpu().numpy())
        self.at += 1
        if done.all():
            return False
        if done.any():
            new = self._drop(done, new)
        self._feed(torch.from_numpy(new).to(self.device))
        return True

    def _noise(self) -> Tensor:
        """(B,) uniform numbers of this step, made for many steps at once."""
        step = self.at % _STEPS
        if step == 0:
            self.uniforms = torch.stack([uniforms(self.keys, self.at + i) for i in range(_STEPS)])
        return (
            self.uniforms[step]
            if len(self.live) == len(self.keys)
            else self.uniforms[step][torch.from_numpy(self.live)]
        )

    def _record(self, new: np.ndarray, logprobs: np.ndarray) -> np.ndarray:
        """Note the tokens `new` (B,), tool results put in their place. Returns (B,) bool: which rows end with them."""
        forced = self.control.force(self.live, new, logprobs)
        self.ids[self.live, self.at] = new
        self.forced[self.live, self.at] = forced
        self.logprobs[self.live, self.at] = logprobs
        self.length[self.live] = self.at + 1
        stopped = self.control.stopped(self.live, new, ~forced)
        self.stopped[self.live[stopped]] = True
        done = stopped | (self.at + 1 >= self.limit[self.live])
        self.control.run_tools(self.live, new, ~forced & ~done, self.at)
        return done

    def _drop(self, done: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Take the rows that are `done` out: the last rows move into their places. Returns `new` likewise."""
        going = np.flatnonzero(~done)
        order = np.arange(len(going))
        holes, movers = order[done[: len(going)]], going[going >= len(going)]
        order[holes] = movers
        self.cache.shrink(torch.from_numpy(holes), torch.from_numpy(movers), len(going))
        if self.seen is not None:
            self.seen = self.seen[torch.from_numpy(order).to(self.device)]
        self.live = self.live[order]
        return new[order]

    def _feed(self, new: Tensor) -> None:
        if self.seen is not None:
            self.seen.scatter_(1, new[:, None], True)
        self.logits = self.decoder.step(new, self.cache)

    @torch.inference_mode()
    def _prefill(self, prompts: list[list[int]], owner: list[int]) -> None:
        """Run each prompt once, then give every row a copy of its prompt's cache. `owner[r]` is row r's prompt."""
        config, lengths = self.model.config, np.array([len(p) for p in prompts])
        self.logits = torch.empty(len(owner), config.vocab_size, device=self.device)
        columns, whose = int(lengths.max()), np.array(owner)
        begins = torch.from_numpy(columns - lengths[whose]).to(self.device)
        room = columns + min(int(self.limit.max()), _ROOM)
        self.cache = KVCache(config.layers, config.kv_heads, config.head_dim, begins, self.dtype, room)
        self.cache.end = columns
        for group in _alike(lengths, _PADDING + common_length(prompts)):
            cache, logits = prefill(self.model, [prompts[p] for p in group], self.decoder.kernel)
            rows = np.flatnonzero(np.isin(whose, group))
            place = {p: i for i, p in enumerate(group)}
            sources = torch.tensor([place[p] for p in whose[rows].tolist()], device=self.device)
            to = torch.from_numpy(rows).to(self.device)
            self.cache.fill(to, cache, sources)
            self.logits[to] = logits[sources]
        seen = self.sampling.repetition_penalty != 1
        self.seen = self._seen(prompts)[torch.from_numpy(whose).to(self.device)] if seen else None

    def _seen(self, prompts: list[list[int]]) -> Tensor:
        seen = torch.zeros(len(prompts), self.model.config.vocab_size, dtype=torch.bool, device=self.device)
        for row, prompt in zip(seen, prompts, strict=True):
            row[torch.tensor(prompt, device=self.device)] = True
        return seen


def _alike(lengths: np.ndarray, most: int) -> list[list[int]]:
    """The prompts in groups of much the same length, with at most `most` tokens of padding in each."""
    groups: list[list[int]] = []
    longest = padding = 0
    for i, length in sorted(enumerate(lengths.tolist()), key=lambda pair: -pair[1]):
        padding += longest - length
        if not groups or padding > most or longest * (len(groups[-1]) + 1) > _PASS:
            groups.append([])
            longest, padding = length, 0
        groups[-1].append(i)
    return groups
