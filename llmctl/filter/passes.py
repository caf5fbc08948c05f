"""The three passes over shards, each resumed where a kill left it.

1. screen: every document by itself, through all steps up to C4, FineWeb's and one's own (nearly all of the time).
2. duplicates: the fingerprints of all shards together, in this process.
3. finish: duplicates out, personal data replaced, tokens counted, files of a useful size.

The shards, their order and therefore the corpus depend on the input and the settings only, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.filter.config import FilterConfig
from llmctl.filter.counts import Counts, add
from llmctl.filter.duplicates import find_duplicates
from llmctl.filter.finish import FinishTask, finish_file, group, late_steps
from llmctl.filter.screen import ScreenTask, release, screen_shard
from llmctl.filter.sources import File, Shard, count_documents, divide
from llmctl.filter.steps import steps_of
from llmctl.parallel import run_shards
from llmctl.workspace import Build
from llmctl.workspace.files import write_json

# A document may take minutes (extraction has a time limit of its own); ten without a sign of life is a hang.
_PATIENCE = 600.0
_COUNTED_AT_ONCE = 64  # files


@dataclass(frozen=True)
class Inventory:
    """What there is to do: the shards, how many documents (None where that is not known), the damaged places."""

    shards: list[Shard]
    documents: int | None
    damage: list[list[str]]


@dataclass(frozen=True)
class Passes:
    """The passes of one run, in the scratch folder of its build."""

    config: FilterConfig
    build: Build
    console: Console

    def take_inventory(self, files: Sequence[File]) -> Inventory:
        """Count the documents of every file, or take the counts of the run that is resumed."""
        note = self.build.scratch / "inventory.json"
        if not note.exists():
            write_json(note, self._count(files))
        found = json.loads(note.read_text(encoding="utf-8"))
        counts, damage = found["counts"], found["damage"]
        shards = divide(files, counts)
        if not shards:
            raise UserError("no documents in the input", self.config.pages, "llmctl show says what an artifact holds")
        if damage:
            first = ": ".join(part for part in damage[0] if part)
            self.console.warn(f"passed over {len(damage):,} damaged places in the input; the first: {first}")
        return Inventory(shards, None if None in counts else sum(counts), damage)

    def _count(self, files: Sequence[File]) -> dict[str, Any]:
        starts = range(0, len(files), _COUNTED_AT_ONCE)
        tasks = [(i, list(files[i : i + _COUNTED_AT_ONCE]), self.config.strict) for i in starts]
        found = run_shards(
            count_documents,
            tasks,
            self.config.workers,
            self.config.engine,
            console=self.console,
            title="count",
            unit="files",
            total=len(files),
        )
        parts = [part for _, part in sorted(found, key=lambda numbered: numbered[0])]
        return {key: [entry for part in parts for entry in part[key]] for key in ("counts", "damage")}

    def screen(self, inventory: Inventory) -> list[Path]:
        """The first pass. The shards' folders, in order."""
        root, settings = self.build.scratch / "screened", self.config.model_dump_json()
        tasks = [ScreenTask(shard, settings, str(root / f"{shard.number:05d}")) for shard in inventory.shards]
        try:
            self._run(screen_shard, tasks, "filter", inventory.documents)
        finally:
            release()
        return [Path(task.out) for task in tasks]

    def finish(self, screened: Sequence[Path], tokenizer: str) -> list[Path]:
        """The second and the third pass. The files' folders, in order."""
        with self.console.progress("find duplicates", None):
            removed = find_duplicates(screened, self.config)
        after = [Counts.load(shard).last() for shard in screened]
        root, settings = self.build.scratch / "finished", self.config.model_dump_json()
        tasks = [
            FinishTask(
                shards=tuple(str(screened[i]) for i in members),
                removed=tuple(tuple(removed[i]) for i in members),
                settings=settings,
                tokenizer=tokenizer,
                out=str(root / f"{number:05d}"),
            )
            for number, members in enumerate(group([size for _, size in after]))
        ]
        self._run(finish_file, tasks, "finish", sum(documents for documents, _ in after))
        return [Path(task.out) for task in tasks]

    def collect(self, finished: Sequence[Path], screened: Sequence[Path], inventory: Inventory) -> Counts:
        """Move the files to their places in the artifact, and write and give the counts of all."""
        counts = Counts([*(step.name for step in steps_of(self.config)), *late_steps(self.config)])
        for folder in (*screened, *finished):
            add(counts.as_dict, Counts.load(folder).as_dict)
        for i, folder in enumerate(finished):
            for part in ("data", "dropped"):
                made, place = folder / f"{part}.parquet", self.build.path / part / f"{i:05d}.parquet"
                place.parent.mkdir(exist_ok=True)
                if made.exists():  # else a killed run has moved it already
                    made.replace(place)
        write_json(self.build.path / "counts.json", {**counts.as_dict, "damaged": inventory.damage})
        return counts

    def _run(self, function: Callable[[Any], Any], tasks: Sequence[Any], title: str, total: int | None) -> None:
        results = run_shards(
            function,
            tasks,
            self.config.workers,
            self.config.engine,
            done=lambda task: Path(task.out).exists(),
            name=str,
            console=self.console,
            title=title,
            unit="documents",
            total=total,
            patience=_PATIENCE,
        )
        for _ in results:
            pass
