"""What ends a row or takes it over: stop tokens, stop strings, and tool results that are forced into it.

A tool call is recognised by token ids, never by text, and what a tool returns is encoded as plain text: a result that
spells an end of turn or a tool call stays text and cannot change who is speaking.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import end_of_turn

ToolRunner = Callable[[str, str], str]
"""(tool, what the model wrote) -> the result's text."""

TOOLS = ("search", "python")
RESULT_TOKENS = 256  # a longer result is cut: it would push the dialogue itself out of a small model's context


def token_id(tokenizer: Any, token: str) -> int | None:
    """The id of a special token, or None where the tokenizer lacks it."""
    found: int | None = tokenizer.specials.get(token)
    return found


class Control:
    """Watches the rows of one batch as they are written. `ids` (N, max_new_tokens) is the batch's own record."""

    def __init__(self, tokenizer: Any, sampling: Sampling, tools: ToolRunner | None, ids: np.ndarray) -> None:
        self.tokenizer, self.tools, self.ids = tokenizer, tools, ids
        self.stop_ids = np.array(stop_ids(tokenizer, sampling), dtype=np.int64)
        self.stop_bytes = [s.encode() for s in sampling.stop_strings]
        self.tails: dict[int, bytes] = {}
        self.queues: dict[int, deque[int]] = {}
        self.calls = tool_tokens(tokenizer) if tools else {}

    def force(self, rows: np.ndarray, new: np.ndarray, logprobs: np.ndarray) -> np.ndarray:
        """Replace what was sampled by the next queued token of each row that has one. Returns (B,) bool: where."""
        forced = np.zeros(len(rows), dtype=bool)
        if self.queues:
            for i, row in enumerate(rows.tolist()):
                if queue := self.queues.get(row):
                    new[i], logprobs[i], forced[i] = queue.popleft(), 0.0, True
                    if not queue:
                        del self.queues[row]
        return forced

    def stopped(self, rows: np.ndarray, new: np.ndarray, live: np.ndarray) -> np.ndarray:
        """(B,) bool: the `live` rows (those whose token was sampled) that end with it."""
        stop = np.isin(new, self.stop_ids) & live
        if self.stop_bytes:
            longest = max(map(len, self.stop_bytes)) - 1
            for i in np.flatnonzero(live & ~stop).tolist():
                row = int(rows[i])
                tail = self.tails.get(row, b"") + self.tokenizer.token_bytes(int(new[i]))
                stop[i] = any(s in tail for s in self.stop_bytes)
                self.tails[row] = tail[-longest:] if longest else b""
        return stop

    def run_tools(self, rows: np.ndarray, new: np.ndarray, live: np.ndarray, step: int) -> None:
        """Run the calls that the `live` rows have just closed, all at once, and queue their results."""
        if not self.calls:
            return
        asked = [
            (int(rows[i]), call)
            for i in np.flatnonzero(live & np.isin(new, list(self.calls))).tolist()
            if (call := self._call(int(rows[i]), step)) is not None
        ]
        for (row, _), result in zip(asked, self._results([call for _, call in asked]), strict=True):
            self.queues[row] = deque(result_ids(self.tokenizer, result))

    def _call(self, row: int, step: int) -> tuple[str, str] | None:
        """(tool, text) of the call that the token at `step` closes; None where it was never opened."""
        return closed_call(self.tokenizer, self.calls, self.ids[row, : step + 1].tolist())

    def _results(self, calls: list[tuple[str, str]]) -> list[str]:
        assert self.tools is not None
        if len(calls) < 2:
            return [self.tools(*call) for call in calls]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return list(pool.map(lambda call: self.tools(*call), calls))  # type: ignore[misc]


def stop_ids(tokenizer: Any, sampling: Sampling) -> list[int]:
    """The tokens that end a sample."""
    if sampling.stop_ids is not None:
        return list(sampling.stop_ids)
    ends = {end_of_turn(tokenizer)}
    with suppress(UserError):  # a tokenizer without an end of text
        ends.add(tokenizer.eos_id)
    return sorted(i for i in ends if i is not None)


def closed_call(tokenizer: Any, calls: dict[int, tuple[str, int]], ids: list[int]) -> tuple[str, str] | None:
    """(tool, text) of the call that the last of `ids` closes; None where it closes none. `calls` as `tool_tokens`."""
    tool, opening = calls.get(ids[-1], ("", -1))
    begin = next((i for i in range(len(ids) - 2, -1, -1) if ids[i] == opening), None)
    return None if not tool or begin is None else (tool, tokenizer.decode(ids[begin + 1 : -1]))


def result_ids(tokenizer: Any, result: str) -> list[int]:
    """What a tool returned, as the tokens that are put into the reply: plain text, whatever it spells, and bounded."""
    opening, closing = (token_id(tokenizer, t) for t in ("<|output_start|>", "<|output_end|>"))
    assert opening is not None and closing is not None
    return [opening, *tokenizer.encode(result)[:RESULT_TOKENS], closing]


def tool_tokens(tokenizer: Any) -> dict[int, tuple[str, int]]:
    """The id that closes a call -> (tool, the id that opens it). Empty where the tokenizer has no tool tokens."""
    if token_id(tokenizer, "<|output_start|>") is None or token_id(tokenizer, "<|output_end|>") is None:
        return {}
    found = {}
    for tool in TOOLS:
        opening, closing = token_id(tokenizer, f"<|{tool}_start|>"), token_id(tokenizer, f"<|{tool}_end|>")
        if opening is not None and closing is not None:
            found[closing] = (tool, opening)
    return found
