"""The first pass: every document of a shard through the steps that look at one document at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.filter import exact
from llmctl.filter.config import FilterConfig
from llmctl.filter.counts import Counts
from llmctl.filter.minhash import MinHasher
from llmctl.filter.row import Check, Row, Step
from llmctl.filter.sources import Shard, documents
from llmctl.filter.steps import first_failure, steps_of
from llmctl.filter.tables import DROPPED, KEPT, TableWriter
from llmctl.parallel import tick, whole_folder


@dataclass(frozen=True)
class ScreenTask:
    """A shard, the settings as JSON, and the folder to make of them."""

    shard: Shard
    settings: str
    out: str

    def __str__(self) -> str:
        return str(self.shard)


def screen_shard(task: ScreenTask) -> int:
    """Make the folder `out`: kept.parquet, dropped.parquet, counts.json, and what duplicates are found by. Its
    number.
    """
    prepared = _prepare(task.settings)
    counts = Counts(step.name for step in prepared.steps)
    prints = Prints(prepared.hasher)
    with whole_folder(Path(task.out)) as making:
        with (
            TableWriter(making / "kept.parquet", KEPT) as kept,
            TableWriter(making / "dropped.parquet", DROPPED) as out,
        ):
            for document in documents(task.shard):
                row = Row(document)
                failed = through(prepared.steps, row, counts)
                if failed is None:
                    prints.add(kept.count, row.body)
                    kept.add(row.columns())
                else:
                    out.add(dropped_row(row, failed, prepared.config.dropped_text))
                tick()
        prints.save(making)
        (making / "counts.json").write_text(json.dumps(counts.as_dict), encoding="utf-8")
    return task.shard.number


def through(steps: Sequence[Step], row: Row, counts: Counts) -> tuple[str, Check] | None:
    """Run the steps in order: None where the row passes them all, else (step, the check that it failed)."""
    counts.read(row.size)
    for step in steps:
        failed = first_failure(step, row)
        if failed is not None:
            counts.dropped(step.name, failed.rule)
            return step.name, failed
        counts.passed(step.name, row.size)
    return None


def dropped_row(row: Row, failed: tuple[str, Check], with_text: bool) -> dict[str, Any]:
    """A row of `dropped/`. A page that was dropped before its text was extracted has none."""
    step, check = failed
    return {
        "id": row.id,
        "url": row.url,
        "rule": f"{step}.{check.rule}",
        "value": check.value,
        "threshold": check.threshold,
        "detail": check.detail,
        "text": row.text if with_text else None,
    }


class Prints:
    """The fingerprints of a shard's kept documents: digests (rows, 2), signatures (some, buckets, hashes) and their
    rows.
    """

    def __init__(self, hasher: MinHasher | None) -> None:
        self._hasher = hasher
        self._digests: list[np.ndarray] = []
        self._signatures: list[np.ndarray] = []
        self._rows: list[int] = []

    def add(self, row: int, text: str) -> None:
        """The text of row `row`; rows come in order."""
        self._digests.append(exact.digest(text))
        signature = self._hasher.signature(text) if self._hasher else None
        if signature is not None:
            self._signatures.append(signature)
            self._rows.append(row)

    def save(self, folder: Path) -> None:
        """Write them."""
        shape = self._hasher.shape if self._hasher else (0, 0)
        np.save(folder / "digests.npy", np.array(self._digests, dtype="<u8").reshape(-1, 2))
        np.save(
            folder / "signatures.npy", np.array(self._signatures, dtype="<u8").reshape(len(self._signatures), *shape)
        )
        np.save(folder / "signed_rows.npy", np.array(self._rows, dtype="<i8"))


@dataclass(frozen=True)
class _Prepared:
    """What a process needs once: models loaded, lists read."""

    config: FilterConfig
    steps: list[Step]
    hasher: MinHasher | None


_here: dict[str, _Prepared] = {}


def _prepare(settings: str) -> _Prepared:
    if settings not in _here:
        release()
        config = FilterConfig.model_validate_json(settings)
        hasher = MinHasher(config.minhash) if config.minhash.enabled else None
        _here[settings] = _Prepared(config, steps_of(config), hasher)
    return _here[settings]


def release() -> None:
    """Let go of what this process has prepared, and end the parser's own process with it."""
    for prepared in _here.values():
        for step in prepared.steps:
            getattr(step, "close", lambda: None)()
    _here.clear()
