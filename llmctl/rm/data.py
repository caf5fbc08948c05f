"""Comparisons as token ids: read from the workspace or from files, split by prompt, rendered in the chat format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.formats.comparisons import read_comparisons
from llmctl.formats.json_rows import Skipped
from llmctl.model.chat_format import render
from llmctl.model.tokenizer import Tokenizer
from llmctl.rm.config import RmConfig
from llmctl.workspace import Artifact, Foreign, Workspace
from llmctl.workspace.files import sha256_json

Row = dict[str, Any]


@dataclass(frozen=True)
class Ranking:
    """The replies to one prompt, each as the ids of the whole conversation, and their ranks: 0 is best."""

    replies: tuple[np.ndarray, ...]
    ranks: tuple[int, ...]
    prompt: int  # how many of the ids are the prompt's
    kind: str = ""
    margin: float | None = None  # how much better the better one is, where the row says so

    @cached_property
    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) for every two replies that are not tied."""
        ranks = list(enumerate(self.ranks))
        return [(i, j) for i, a in ranks for j, b in ranks if a < b]

    @cached_property
    def ties(self) -> list[tuple[int, int]]:
        """Every two replies of one rank, once."""
        ranks = list(enumerate(self.ranks))
        return [(i, j) for i, a in ranks for j, b in ranks if i < j and a == b]

    @property
    def strengths(self) -> list[float]:
        """How much better the better reply of each pair is: what the row says, or how many ranks lie between them as a
        part of all there are, so 1 for the best against the worst.
        """
        if self.margin is not None:
            return [self.margin] * len(self.pairs)
        return [(self.ranks[j] - self.ranks[i]) / max(self.ranks) for i, j in self.pairs]

    @property
    def longest(self) -> int:
        """Ids of the longest conversation."""
        return max(map(len, self.replies))

    @property
    def tokens(self) -> int:
        """Ids of all its conversations."""
        return sum(map(len, self.replies))


@dataclass
class Data:
    """Rankings to learn from and to measure on, and how many rows could not be used, by reason."""

    train: list[Ranking] = field(default_factory=list)
    heldout: list[Ranking] = field(default_factory=list)
    unreadable: list[Skipped] = field(default_factory=list)
    replies: Counter[str] = field(default_factory=Counter)  # left out of rows that are kept, by reason
    tied: int = 0  # no reply is better than another
    too_long: int = 0
    repeated: int = 0  # the very same comparison once more
    overlap: int = 0  # training rows of one input whose prompt another holds out

    @property
    def left_out(self) -> str:
        """What was left out, in words; empty where nothing was."""
        counts = {
            "longer than max_length": self.too_long,
            "tied throughout": self.tied,
            "there twice": self.repeated,
            "with a held-out prompt": self.overlap,
        }
        parts = [f"{n:,} {why}" for why, n in counts.items() if n]
        parts += [f"single replies {why}: {n:,}" for why, n in sorted(self.replies.items())]
        if self.unreadable:
            why = ", ".join(f"{n:,} {reason}" for reason, n in self.reasons.most_common())
            parts.append(f"{len(self.unreadable):,} unusable ({why}), the first: {self.unreadable[0]}")
        return "; ".join(parts)

    @property
    def reasons(self) -> Counter[str]:
        """How many rows were unusable for what, without the details."""
        return Counter(s.why.split(":")[0] for s in self.unreadable)


def read_data(config: RmConfig, workspace: Workspace, tokenizer: Tokenizer, longest: int) -> Data:
    """Everything `config` names, in conversations of at most `longest` ids; UserError where nothing is left to learn.

    Of the held-out rows only as many as `eval_pairs` asks for, chosen by their hash.
    """
    data = Data()
    train, heldout = (_unique(rows, data) for rows in _read(config, workspace, data))
    held = {_key(row) for row in heldout}
    kept = [row for row in train if _key(row) not in held]
    data.overlap = len(train) - len(kept)
    data.train = list(_rendered(kept, tokenizer, longest, data, ties=config.loss.ties > 0))
    room = config.eval_pairs
    for ranking in _rendered(sorted(heldout, key=sha256_json), tokenizer, longest, data) if room else ():
        data.heldout.append(ranking)
        room -= len(ranking.pairs)
        if room <= 0:
            break
    if not data.train:
        raise UserError(
            f"no comparison to learn from ({data.left_out or 'all are held out'})",
            ", ".join(config.comparisons),
            "a comparison needs two replies, one better than the other, that fit into the model's context",
        )
    return data


def _read(config: RmConfig, workspace: Workspace, data: Data) -> tuple[list[Row], list[Row]]:
    """(training rows, held-out rows) of all inputs; of several, rows without a kind get their input's name."""
    train: list[Row] = []
    heldout: list[Row] = []
    for value in config.comparisons:
        source = workspace.resolve(value, ("comparisons",), files=True)
        name = value if len(config.comparisons) > 1 else ""
        given = _has_heldout(source)
        for split in ("train", "heldout") if given else ("train",):
            found = read_comparisons(source.path, split)
            data.unreadable += found.skipped
            data.replies += found.replies
            for row in found.rows:
                row["kind"] = row.get("kind") or row.get("source") or name
                held = split == "heldout" or (not given and int(_key(row)[:8], 16) < config.heldout * 2**32)
                (heldout if held else train).append(row)
    return train, heldout


def _has_heldout(source: Artifact | Foreign) -> bool:
    """Whether there is a held-out part. UserError where a file of an artifact is damaged."""
    if isinstance(source, Foreign):
        return False
    source.file("train.jsonl")
    return "heldout.jsonl" in set(source.files()) and source.file("heldout.jsonl").stat().st_size > 0


def _key(row: Row) -> str:
    """What a row is held out by: all replies to one prompt are on one side."""
    return sha256_json(row["prompt"])


def _unique(rows: list[Row], data: Data) -> list[Row]:
    """Each comparison once, in whatever order its replies are listed."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(sha256_json([row["prompt"], sorted(zip(row["responses"], row["ranking"], strict=True))]), row)
    data.repeated += len(rows) - len(found)
    return list(found.values())


def _rendered(
    rows: Iterable[Row], tokenizer: Tokenizer, longest: int, data: Data, ties: bool = False
) -> Iterator[Ranking]:
    """The rows that have a preference (or, with `ties`, none) and fit; the others are counted in `data`."""
    for row in rows:
        if len(set(row["ranking"])) < 2 and not ties:
            data.tied += 1
            continue
        ranking = render_row(row, tokenizer)
        if ranking.longest > longest:
            data.too_long += 1
        else:
            yield ranking


def render_row(row: Row, tokenizer: Tokenizer) -> Ranking:
    """A row of comparisons in the chat format. Turns are rendered one by one there, so the prompt is encoded once."""
    prompt = render(row["prompt"], tokenizer).ids
    ends = (render([{"role": "assistant", "content": reply}], tokenizer).ids for reply in row["responses"])
    replies = tuple(np.array(prompt + end, dtype=np.int32) for end in ends)
    return Ranking(replies, tuple(row["ranking"]), len(prompt), row.get("kind", ""), row.get("margin"))
