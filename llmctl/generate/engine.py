"""The engine: prompts in, samples out.

Ragged prompts share a batch; a prompt is run once for all its samples; rows that finish leave. A sample is what full
forward passes without a cache would give (tests/generate), and it does not depend on which other rows run beside it, up
to the rounding of matrix products of another size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.generate.batch import Batch
from llmctl.generate.continuous import ContinuousBatch
from llmctl.generate.control import Control, ToolRunner, stop_ids
from llmctl.generate.decoder import Decoder
from llmctl.generate.precision import choose_dtype
from llmctl.generate.sampling import Sampling
from llmctl.generate.scoring import Likelihood, Scored, likelihoods
from llmctl.generate.text import Piece, TextPieces, first_stop

__all__ = ["Control", "Engine", "Piece", "Sample", "Sampling", "ToolRunner"]


@dataclass
class Sample:
    """One answer."""

    ids: list[int]
    """The new tokens, forced ones and the stop token included."""
    forced: list[bool]
    """True where a tool result was put in: not the model's words, not to be trained on."""
    logprobs: list[float]
    """Of each sampled token, at the sampling temperature, over the full vocabulary; 0 where forced."""
    finish: str
    """"stop": it ended by itself. "length": it ran into max_new_tokens or the end of the context."""
    text: str
    """The text without the stop token or stop string. Special tokens of tool calls stand in it."""


class Engine:
    """Generates with `model` (a `Transformer`) and its `tokenizer`.

    `precision` is "bf16", "fp32", or "auto": bf16 where the machine computes faster in it. A bf16 engine keeps its own
    copy of the weights and takes them from `model` at every call, so it may be kept while `model` trains.
    """

    def __init__(self, model: Any, tokenizer: Any, precision: str = "auto") -> None:
        self.model = getattr(model, "_orig_mod", model)
        self.tokenizer = tokenizer
        self.dtype = choose_dtype(precision, next(self.model.parameters()).device)
        self._cast: nn.Module | None = None

    def generate(
        self,
        prompts: list[list[int]],
        sampling: Sampling,
        n: int = 1,
        tools: ToolRunner | None = None,
        batch_size: int = 64,
    ) -> list[list[Sample]]:
        """`n` samples of each prompt (token ids, at least one), in order.

        At most `batch_size` rows run at once. A prompt that leaves no room in the context gives empty samples, finish
        "length".
        """
        assert all(prompts), "an empty prompt has nothing to go on from"
        room = [len(p) < self.model.config.context for p in prompts]
        rows = [(p, s) for p in range(len(prompts)) if room[p] for s in range(n)]
        # Equal lengths together: the less padding. A prompt's samples stay together: it is run once for them.
        rows.sort(key=lambda row: (-len(prompts[row[0]]), row))
        found: dict[tuple[int, int], Sample] = {}
        with self._weights() as model:
            decoder = Decoder(model)
            for at in range(0, len(rows), batch_size):
                part = rows[at : at + batch_size]
                batch = Batch(decoder, self.tokenizer, prompts, part, sampling, tools)
                while batch.step():
                    pass
                found.update((row, self._sample(batch, r)) for r, row in enumerate(part))
        empty = Sample([], [], [], "length", "")
        return [[found.get((p, s)) or copy.deepcopy(empty) for s in range(n)] for p in range(len(prompts))]

    def pieces(
        self, prompt: list[int], sampling: Sampling, tools: ToolRunner | None = None, sample: int = 0
    ) -> Iterator[Piece]:
        """The tokens of one sample as they are made: what `generate([prompt])` gives as its sample number `sample`."""
        if len(prompt) >= self.model.config.context:
            return
        text = TextPieces(sampling.stop_strings)
        with self._weights() as model:
            batch = Batch(Decoder(model), self.tokenizer, [prompt], [(0, sample)], sampling, tools)
            going = True
            while going:
                going = batch.step()
                at = batch.at - 1
                token = int(batch.ids[0, at])
                ended = not going and bool(batch.stopped[0]) and token in batch.control.stop_ids
                shown = text.push(b"" if ended else self.tokenizer.token_bytes(token), final=not going)
                yield Piece(token, bool(batch.forced[0, at]), float(batch.logprobs[0, at]), shown)

    def stream(self, prompt: list[int], sampling: Sampling, tools: ToolRunner | None = None) -> Iterator[str]:
        """The text of one sample in pieces that are whole characters; joined, they are its `text`."""
        return (p.text for p in self.pieces(prompt, sampling, tools) if p.text)

    @contextmanager
    def continuous(self) -> Iterator[ContinuousBatch]:
        """A batch that requests join and leave while it runs, for a server; the weights stay as they are within."""
        with self._weights() as model:
            yield ContinuousBatch(Decoder(model), self.tokenizer)

    def next_token_probabilities(self, prompt: list[int], k: int = 10) -> list[tuple[str, int, float]]:
        """The `k` likeliest next tokens: (text, id, probability), the likeliest first."""
        with self._weights() as model, torch.inference_mode():
            ids = torch.tensor([prompt[-model.config.context :]], device=next(model.parameters()).device)
            chances = model.logits(model(ids)[:, -1])[0].softmax(-1)
            top = chances.topk(min(k, len(chances)))
        return [
            (self.tokenizer.decode([i]), i, p) for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]

    def score(
        self, prompts: list[list[int]], replies: list[list[int]], temperature: float = 1.0, batch_size: int = 16
    ) -> list[list[float]]:
        """Log-probabilities of the tokens of `replies[i]` after `prompts[i]`, by full passes without a cache."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]) + len(replies[i]))
        found: list[list[float]] = [[] for _ in prompts]
        with self._weights() as model, torch.inference_mode():
            for at in range(0, len(order), batch_size):
                part = order[at : at + batch_size]
                for i, scores in zip(
                    part,
                    _score(model, [prompts[i] for i in part], [replies[i] for i in part], temperature),
                    strict=True,
                ):
                    found[i] = scores
        return found

    def likelihoods(self, groups: Sequence[Sequence[Scored]]) -> list[list[Likelihood]]:
        """Of the continuations in each group, in order. What those of a group, and what all groups begin with, is run
        once. No sequence without its last token may be longer than the context.
        """
        with self._weights() as model:
            return likelihoods(model, groups)

    def _sample(self, batch: Batch, row: int) -> Sample:
        length = int(batch.length[row])
        ids = batch.ids[row, :length].tolist()
        stopped = bool(batch.stopped[row])
        by_token = stopped and ids[-1] in stop_ids(self.tokenizer, batch.sampling)
        text = self.tokenizer.decode(ids[:-1] if by_token else ids)
        cut = first_stop(text, batch.sampling.stop_strings)
        return Sample(
            ids,
            batch.forced[row, :length].tolist(),
            batch.logprobs[row, :length].tolist(),
            "stop" if stopped else "length",
            text if cut is None else text[:cut],
        )

    @contextmanager
    def _weights(self) -> Iterator[Any]:
        """The model in the engine's precision and in eval mode."""
        first = next(self.model.parameters())
        if first.dtype != self.dtype:
            yield self._refreshed()
            return
        training = self.model.training
        self.model.eval()
        try:
            yield self.model
        finally:
            self.model.train(training)

    def _refreshed(self) -> nn.Module:
        """The copy in `dtype`, its weights taken afresh: one pass over them, which is what a single token costs too."""
        with torch.no_grad():
            if self._cast is None:
                self._cast = copy.deepcopy(self.model).eval().requires_grad_(False)
                for p in self._cast.parameters():
                    p.data = p.data.to(self.dtype)  # not .to(): buffers such as rotary tables keep their precision
            else:
                for mine, theirs in zip(self._cast.parameters(), self.model.parameters(), strict=True):
                    mine.copy_(theirs)
        return self._cast


def _score(model: Any, prompts: list[list[int]], replies: list[list[int]], temperature: float) -> list[list[float]]:
    """One right-padded forward pass; causal attention keeps the padding out."""
    device = next(model.parameters()).device
    whole = [p + r for p, r in zip(prompts, replies, strict=True)]
    ids = torch.zeros(len(whole), max(map(len, whole)), dtype=torch.int64)
    for row, tokens in zip(ids, whole, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    hidden = model(ids.to(device))
    scores = []
    for row, prompt, reply in zip(hidden, prompts, replies, strict=True):
        begin = len(prompt) - 1
        logits: Tensor = model.logits(row[begin : begin + len(reply)]) / temperature
        picked = torch.tensor(reply, device=device, dtype=torch.int64)[:, None]
        scores.append((logits.gather(1, picked) - logits.logsumexp(-1, keepdim=True))[:, 0].tolist())
    return scores
