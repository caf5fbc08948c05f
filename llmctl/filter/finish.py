"""The third pass: duplicates out, personal data replaced, tokens counted, shards joined into files of a useful size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from llmctl.filter import pii, scores
from llmctl.filter.config import FilterConfig
from llmctl.filter.counts import Counts
from llmctl.filter.removals import Removal, Removals
from llmctl.filter.tables import DROPPED, KEPT, TableWriter, read_rows
from llmctl.filter.tokens import TokenCounter
from llmctl.parallel import tick, whole_folder

_FILE = 64 << 20  # bytes of text in a file of the corpus: a few seconds to read, some 20 MB on disk
_BATCH = 256


@dataclass(frozen=True)
class FinishTask:
    """Shards that become one file and their numbers, what goes from them, the settings as JSON, and the folder to
    make.
    """

    shards: tuple[str, ...]
    numbers: tuple[int, ...]
    removed: Removals
    settings: str
    tokenizer: str
    out: str

    def __str__(self) -> str:
        return f"file {Path(self.out).name}"


def finish_file(task: FinishTask) -> str:
    """Make the folder `out`: data.parquet, dropped.parquet, counts.json, and scores.parquet where there are any."""
    config = FilterConfig.model_validate_json(task.settings)
    counts = Counts(late_steps(config))
    count_tokens = _counter(task.tokenizer)
    with whole_folder(Path(task.out)) as making:
        with (
            TableWriter(making / "data.parquet", KEPT) as kept,
            TableWriter(making / "dropped.parquet", DROPPED) as out,
        ):
            for shard, number in zip(task.shards, task.numbers, strict=True):
                for row in read_rows(Path(shard) / "dropped.parquet"):
                    out.add(row)
                stay = _without(Path(shard), task.removed[number], config, counts, out)
                while batch := list(islice(stay, _BATCH)):
                    _keep(batch, config, counts, count_tokens, kept)
        parts = [path for shard in task.shards if (path := Path(shard) / "scores.parquet").exists()]
        if parts:
            scores.join(parts, making / "scores.parquet")
        (making / "counts.json").write_text(json.dumps(counts.as_dict), encoding="utf-8")
    return task.out


def late_steps(config: FilterConfig) -> list[str]:
    """The steps of this pass that are on."""
    on = {"exact": config.exact.enabled, "minhash": config.minhash.enabled, "pii": config.pii.enabled}
    return [name for name, enabled in on.items() if enabled]


def group(sizes: Sequence[int]) -> list[range]:
    """Shards in a row whose kept bytes together make a file."""
    found, begin, filled = [], 0, 0
    for i, size in enumerate(sizes):
        if filled and filled + size > _FILE:
            found.append(range(begin, i))
            begin, filled = i, 0
        filled += size
    return [*found, range(begin, len(sizes))]


def _without(
    shard: Path, removed: Sequence[Removal], config: FilterConfig, counts: Counts, out: TableWriter
) -> Iterator[dict[str, Any]]:
    """The rows of a shard that are no duplicates; the others go to `out`."""
    goes = {removal.row: removal for removal in removed}
    steps = [step for step in late_steps(config) if step != "pii"]
    for number, row in enumerate(read_rows(shard / "kept.parquet")):
        removal, size = goes.get(number), len(row["text"].encode())
        for step in steps[: steps.index(removal.step)] if removal else steps:
            counts.passed(step, size)
        if removal is None:
            yield row
        else:
            counts.dropped(removal.step, "duplicate")
            out.add(_duplicate(row, removal, config.dropped_text))
            tick()


def _duplicate(row: dict[str, Any], removal: Removal, with_text: bool) -> dict[str, Any]:
    return {
        "id": row["id"],
        "url": row["url"],
        "rule": f"{removal.step}.duplicate",
        "rules": [f"{removal.step}.duplicate"],
        "value": removal.similarity,
        "threshold": None,
        "detail": removal.stays,
        "text": row["text"] if with_text else None,
    }


def _keep(
    rows: list[dict[str, Any]],
    config: FilterConfig,
    counts: Counts,
    count_tokens: Callable[[Sequence[str]], Sequence[int | None]],
    kept: TableWriter,
) -> None:
    if config.pii.enabled:
        for row in rows:
            row["text"], replaced = pii.replace(row["text"], config.pii)
            counts.replaced(replaced)
            counts.passed("pii", len(row["text"].encode()))
    for row, tokens in zip(rows, count_tokens([row["text"] for row in rows]), strict=True):
        row["token_count"] = tokens
        counts.kept(row["language"], tokens)
        kept.add(row)
    tick(len(rows))


@lru_cache(maxsize=1)
def _counter(tokenizer: str) -> Callable[[Sequence[str]], Sequence[int | None]]:
    """Counts the tokens of texts; without a tokenizer every count is None."""
    return TokenCounter(Path(tokenizer)).counts if tokenizer else lambda texts: [None] * len(texts)
