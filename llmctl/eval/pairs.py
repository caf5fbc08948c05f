"""Reward models: how often the better answer of a held-out pair gets the higher score."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from llmctl.console import Progress
from llmctl.errors import UserError
from llmctl.eval.questions import PAIRS, whole_rows
from llmctl.formats.comparisons import read_comparisons
from llmctl.model.chat_format import render
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import RewardModel
from llmctl.workspace import Artifact, Foreign
from llmctl.workspace.files import sha256_json

_PAIRS_AT_ONCE = 16


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which the first is the better one."""

    id: str
    prompt: list[dict[str, Any]]
    better: str
    worse: str


def held_out_pairs(sources: Sequence[Artifact | Foreign], n: int, seed: int) -> list[Pair]:
    """`n` pairs, chosen by a hash, of the held-out rankings of `sources`. Ties are no pairs."""
    found = {p.id: p for source in sources for where, row in _rows(source) for p in _pairs(row, where)}
    return sorted(found.values(), key=lambda p: hashlib.sha256(f"{seed}/{p.id}".encode()).digest())[:n]


def measure_pairs(
    model: RewardModel, tokenizer: Tokenizer, pairs: Sequence[Pair], bar: Progress
) -> list[dict[str, Any]]:
    """One row a pair, in their order. Equal scores are no preference, so they count as wrong."""
    rows = []
    for at in range(0, len(pairs), _PAIRS_AT_ONCE):
        part = pairs[at : at + _PAIRS_AT_ONCE]
        texts = [(p.prompt, reply) for p in part for reply in (p.better, p.worse)]
        values = score_replies(model, tokenizer, texts)
        for i, pair in enumerate(part):
            better, worse = values[2 * i : 2 * i + 2]
            scored = {"better_score": round(better, 6), "worse_score": round(worse, 6), "correct": better > worse}
            if too_long(model.backbone.config.context, tokenizer, texts[2 * i : 2 * i + 2]):
                scored["cut"] = True
            rows.append(
                {
                    "id": pair.id,
                    "task": PAIRS,
                    "prompt": pair.prompt,
                    "better": pair.better,
                    "worse": pair.worse,
                    **scored,
                }
            )
        bar.advance(len(part))
    return rows


Said = tuple[list[dict[str, Any]], str]
"""(prompt, reply)."""


def score_replies(model: RewardModel, tokenizer: Tokenizer, texts: Sequence[Said]) -> list[float]:
    """The scores of each, in float32, at the last token of the reply.

    What does not fit into the context is cut off in front: a score is read behind the reply's end, so the end of the
    prompt and the reply are what it needs most.
    """
    rendered = [_ids(tokenizer, said)[-model.backbone.config.context :] for said in texts]
    lengths = torch.tensor([len(ids) for ids in rendered])
    device = next(model.parameters()).device
    batch = torch.zeros(len(rendered), int(lengths.max()), dtype=torch.int64)
    for row, ids in zip(batch, rendered, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    with torch.inference_mode():
        return [float(v) for v in model(batch.to(device), lengths.to(device))]


def too_long(context: int, tokenizer: Tokenizer, texts: Sequence[Said]) -> int:
    """How many of `texts` do not fit into the context whole."""
    return sum(len(_ids(tokenizer, said)) > context for said in texts)


def cut_note(label: str, cut: int, of: str) -> list[str]:
    """What a report says where something was cut."""
    return (
        [f"{label}: {cut:,} of {of} are longer than its context and were read without their beginning"] if cut else []
    )


def _ids(tokenizer: Tokenizer, said: Said) -> list[int]:
    return render([*said[0], {"role": "assistant", "content": said[1]}], tokenizer).ids


def _rows(source: Artifact | Foreign) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(where, row): an artifact's held-out part, or a whole file."""
    if isinstance(source, Foreign):
        yield from ((f"{source.path}, comparison {n}", r) for n, r in enumerate(read_comparisons(source.path).rows, 1))
    elif "heldout.jsonl" in set(source.files()):
        yield from whole_rows(source.file("heldout.jsonl"))


def _pairs(row: Mapping[str, Any], where: str) -> Iterator[Pair]:
    prompt, responses, ranking = row.get("prompt"), row.get("responses"), row.get("ranking")
    lists = isinstance(responses, list) and isinstance(ranking, list) and len(responses) == len(ranking)
    if prompt is None or not lists:
        raise UserError("a comparison needs a 'prompt', and 'responses' and a 'ranking' of one length", where)
    assert isinstance(responses, list) and isinstance(ranking, list)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    for i, j in combinations(range(len(responses)), 2):
        if ranking[i] != ranking[j]:
            better, worse = (i, j) if ranking[i] < ranking[j] else (j, i)
            ident = sha256_json([messages, responses[better], responses[worse]])[:16]
            yield Pair(ident, messages, str(responses[better]), str(responses[worse]))
