"""The first pass: the documents of a shard are measured, or their scores read, and each is kept or dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.filter import exact, scores
from llmctl.filter.again import ScoredShard, unmeasured
from llmctl.filter.c4 import C4
from llmctl.filter.config import FilterConfig
from llmctl.filter.counts import Counts
from llmctl.filter.decide import Decision, decide, funnel
from llmctl.filter.measure import Measurer
from llmctl.filter.minhash import MinHasher
from llmctl.filter.own import Own
from llmctl.filter.scores import Scored
from llmctl.filter.sources import Shard, documents
from llmctl.filter.steps import steps_of
from llmctl.filter.tables import DROPPED, KEPT, TableWriter
from llmctl.parallel import tick, whole_folder


@dataclass(frozen=True)
class ScreenTask:
    """A shard of documents or of scores, the settings as JSON, and the folder to make of them."""

    shard: Shard | ScoredShard
    settings: str
    out: str

    def __str__(self) -> str:
        return str(self.shard)


def screen_shard(task: ScreenTask) -> int:
    """Make the folder `out`: kept.parquet, dropped.parquet, counts.json, what duplicates are found by, and the scores
    where they are measured. Its number.
    """
    prepared = _prepare(task.settings)
    scored = prepared.scored(task.shard)
    decision = decide(prepared.measurer.columns, scored.values)
    counts = Counts(prepared.step_names)
    funnel(counts, decision, scored.sizes)
    rows = [prepared.outcome(scored, decision, i, counts) for i in range(len(scored.rows))]
    with whole_folder(Path(task.out)) as making:
        with (
            TableWriter(making / "kept.parquet", KEPT) as kept,
            TableWriter(making / "dropped.parquet", DROPPED) as out,
        ):
            for row in rows:
                (out if "rule" in row else kept).add(row)
        stay = [i for i, row in enumerate(rows) if "rule" not in row]
        prepared.sign(scored, stay, [rows[i]["text"] for i in stay])
        save_prints(making, [rows[i]["text"] for i in stay], [scored.signatures[i] for i in stay], prepared.hasher)
        if prepared.config.scores and not task.shard.has_current_scores:
            scores.write(making / "scores.parquet", scored.table(prepared.measurer.columns))
        (making / "counts.json").write_text(json.dumps(counts.as_dict), encoding="utf-8")
    return task.shard.number


def save_prints(
    folder: Path, texts: Sequence[str], signatures: Sequence[bytes | None], hasher: MinHasher | None
) -> None:
    """What duplicates are found by: digests (rows, 2), signatures (some, buckets, hashes) and the rows of these."""
    signed = [row for row, signature in enumerate(signatures) if hasher and signature]
    found = b"".join(signatures[row] or b"" for row in signed)
    shape = hasher.shape if hasher else (0, 0)
    np.save(folder / "digests.npy", np.array([exact.digest(t) for t in texts], dtype="<u8").reshape(-1, 2))
    np.save(folder / "signatures.npy", np.frombuffer(found, dtype="<u8").reshape(len(signed), *shape))
    np.save(folder / "signed_rows.npy", np.array(signed, dtype="<i8"))


class Prepared:
    """What a process needs once: models loaded, lists read."""

    def __init__(self, config: FilterConfig) -> None:
        self.config = config
        self.measurer = Measurer(steps_of(config), config.scores)
        self.hasher = MinHasher(config.minhash) if config.minhash.enabled else None
        self.own = Own(config.own) if config.own.function else None
        self.step_names = [s.name for s in self.measurer.scorers] + ["own"] * bool(self.own)
        self._clean: Callable[[str], str] = C4(config.c4).clean if config.c4.enabled else lambda text: text

    def scored(self, shard: Shard | ScoredShard) -> Scored:
        """The shard's documents, measured now or before."""
        if isinstance(shard, Shard):
            return self.measurer(documents(shard))
        if not shard.measured:
            return unmeasured(shard, self.measurer)
        table = shard.table()
        tick(len(table))
        found = Scored.of(table, self.measurer.columns)
        return found if shard.signed else Scored(**{**vars(found), "signatures": [None] * len(table)})

    def sign(self, scored: Scored, documents: Sequence[int], texts: Sequence[str]) -> None:
        """Give these documents, whose final texts are `texts`, the signatures that they have not: empty bytes where the
        text is too short for one.
        """
        if self.hasher is None:
            return
        new = [(i, text) for i, text in zip(documents, texts, strict=True) if scored.signatures[i] is None]
        made = self.hasher.signatures([text for _, text in new])
        for (i, _), signature in zip(new, made, strict=True):
            scored.signatures[i] = b"" if signature is None else signature.astype("<u8").tobytes()

    def outcome(self, scored: Scored, decision: Decision, i: int, counts: Counts) -> dict[str, Any]:
        """The row of document `i` in the corpus, or, with a `rule`, its row among the dropped."""
        row, first = scored.rows[i], int(decision.first[i])
        if first >= 0:
            column = decision.columns[first]
            value = float(scored.values[i, first])
            detail = row["details"].get(column.name) or row["details"].get(column.rule.name, "")
            return self._dropped(row, decision.rules(i), value, column.rule.threshold, detail)
        if row["text"] is None:
            raise UserError(
                "pages that were dropped before their text was extracted would now be kept",
                row["url"],
                "filter the pages again instead of the corpus's scores",
            )
        text = scored.final[i]
        if text is None:
            text = self._clean(row["text"])
        kept = {name: row.get(name) for name in KEPT.names} | {"text": text, "token_count": None}
        if self.own:
            reason = self.own(kept)
            if reason:
                counts.dropped("own", reason)
                return self._dropped(row, [f"own.{reason}"], None, None, "")
            counts.passed("own", len(text.encode()))
        return kept

    def _dropped(
        self, row: dict[str, Any], rules: list[str], value: float | None, threshold: float | None, detail: str
    ) -> dict[str, Any]:
        return {
            "id": row["id"],
            "url": row["url"],
            "rule": rules[0],
            "rules": rules,
            "value": value,
            "threshold": threshold,
            "detail": detail,
            "text": row["text"] if self.config.dropped_text else None,
        }

    def close(self) -> None:
        """End the parser's own process."""
        for scorer in self.measurer.scorers:
            getattr(scorer, "close", lambda: None)()


_here: dict[str, Prepared] = {}


def _prepare(settings: str) -> Prepared:
    if settings not in _here:
        release()
        _here[settings] = Prepared(FilterConfig.model_validate_json(settings))
    return _here[settings]


def release() -> None:
    """Let go of what this process has prepared, and end the parser's own process with it."""
    for prepared in _here.values():
        prepared.close()
    _here.clear()
