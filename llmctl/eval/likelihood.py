"""How lm-evaluation-harness's `hf` model turns texts into tokens and likelihoods, on our engine.

A prompt and its continuation are encoded together and cut where the prompt alone would end, with the spaces at the end
of the prompt counted to the continuation; an empty prompt is the token that documents begin with; what is too long
loses its beginning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import tokenizers

from llmctl.eval.task_prompts import Prompt
from llmctl.generate.engine import Engine
from llmctl.generate.scoring import Likelihood, Scored
from llmctl.model.chat_format import render_prompt
from llmctl.model.tokenizer import Tokenizer

Pair = tuple[Prompt, str]


def likelihoods(engine: Engine, groups: Sequence[Sequence[Pair]], special: bool = False) -> list[list[Likelihood]]:
    """Of each (prompt, continuation). Those of one group, an item's choices, share what they have in common.

    `special` reads the names of special tokens in the texts as these tokens, as the harness does.
    """
    scored = [[encode_pair(engine, prompt, text, special) for prompt, text in group] for group in groups]
    return engine.likelihoods(scored)


def encode_pair(engine: Engine, prompt: Prompt, continuation: str, special: bool = False) -> Scored:
    """The ids of both, and where the continuation begins; cut in front to what the context holds."""
    tokenizer = engine.tokenizer
    if prompt.messages is not None:
        before = chat_ids(tokenizer, prompt)
        return cut(engine, before + tokenizer.encode(continuation), len(before))
    if not prompt.text:
        ids = tokenizer.encode(continuation, special)
        return cut(engine, ids if ids[:1] == [tokenizer.bos_id] else [tokenizer.bos_id, *ids], 1)
    text = prompt.text.rstrip()
    whole = encode(tokenizer, prompt.text + continuation, special)
    return cut(engine, whole, max(1, len(encode(tokenizer, text, special))))


def prompt_ids(tokenizer: Tokenizer, prompt: Prompt, special: bool = False) -> list[int]:
    """The ids that a reply is written behind: one at least."""
    if prompt.messages is not None:
        return chat_ids(tokenizer, prompt)
    return encode(tokenizer, prompt.text, special) or [tokenizer.bos_id]


def chat_ids(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    """The conversation, the header of the model's turn and the beginning of its reply."""
    assert prompt.messages is not None
    return render_prompt(prompt.messages, tokenizer) + tokenizer.encode(prompt.prefix)


def cut(engine: Engine, ids: list[int], start: int) -> Scored:
    """The last tokens, as many as the context holds besides the one that is only predicted."""
    over = max(0, len(ids) - engine.model.config.context - 1)
    return ids[over:], max(1, start - over)


def encode(tokenizer: Tokenizer, text: str, special: bool = False) -> list[int]:
    """With the token in front that the tokenizer puts before every text (Llama's does)."""
    ids = tokenizer.encode(text, special)
    front = _front(tokenizer)
    return ids if ids[: len(front)] == front else front + ids


@lru_cache(maxsize=8)
def _front(tokenizer: Tokenizer) -> list[int]:
    """What the tokenizer's own post-processor puts before a text."""
    if not tokenizer.spec.get("post_processor"):
        return []
    return list(tokenizers.Tokenizer.from_str(json.dumps(dict(tokenizer.spec))).encode("").ids)


def rolling(engine: Engine, texts: Sequence[str]) -> list[float]:
    """The log-likelihood of each whole text, every token predicted once.

    In windows of the context: the first begins with the document's token; a later one holds its own tokens and the one
    before them; the last is as long as the others, with tokens that were predicted before in front.
    """
    windows = [list(_windows(engine, text)) for text in texts]
    found = iter(engine.likelihoods([[window] for text in windows for window in text]))
    return [sum(next(found)[0].total for _ in text) for text in windows]


def _windows(engine: Engine, text: str) -> Iterator[Scored]:
    tokenizer, size = engine.tokenizer, int(engine.model.config.context)
    ids = encode(tokenizer, text)
    if not ids:
        return
    yield [tokenizer.bos_id, *ids[:size]], 1
    for at in range(size, len(ids), size):
        end = min(at + size, len(ids))
        yield ids[end - size - 1 : end], size + 1 - (end - at)


def stopped(engine: Engine, ids: Sequence[int], until: Sequence[str]) -> str:
    """The text of a reply up to the first of `until`."""
    text = engine.tokenizer.decode(ids, special=False)
    for stop in filter(None, until):
        text = text.partition(stop)[0]
    return text


def reply_room(engine: Engine, wanted: int) -> tuple[int, int]:
    """(tokens of a prompt, new tokens): as wanted, where the prompt keeps half of the context at least."""
    context: Any = engine.model.config.context
    new = min(wanted, context // 2)
    return context - new, new
