"""The three passes over shards, each resumed where a kill left it.

1. screen: every document by itself is measured by all steps, and decided (nearly all of the time).
2. duplicates: the fingerprints of all shards together, in this process.
3. finish: duplicates out, personal data replaced, tokens counted, files of a useful size.

The shards, their order and therefore the corpus depend on the input and the settings only, byte for byte.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.filter.again import SETTINGS, ScoredShard, divided
from llmctl.filter.config import FilterConfig
from llmctl.filter.counts import Counts, add
from llmctl.filter.duplicates import find_duplicates
from llmctl.filter.finish import FinishTask, finish_file, group, late_steps
from llmctl.filter.screen import ScreenTask, release, screen_shard
from llmctl.filter.sources import File, Shard, count_documents, divide
from llmctl.filter.steps import step_names
from llmctl.parallel import run_shards
from llmctl.workspace import Artifact, Build, Foreign
from llmctl.workspace.files import write_json

# A document may take minutes (extraction has a time limit of its own); ten without a sign of life is a hang.
_PATIENCE = 600.0
_COUNTED_AT_ONCE = 64  # files
_NO_RESULT = ("workers", "engine", "out")


@dataclass(frozen=True)
class Inventory:
    """What there is to do: the shards, how many documents (None where that is not known), the damaged places."""

    shards: Sequence[Shard | ScoredShard]
    documents: int | None
    damage: list[list[str]]


@dataclass
class Passes:
    """The passes of one run, in the scratch folder of its build. `ready` are the settings as processes take them, with
    what had to be made first.
    """

    config: FilterConfig
    ready: FilterConfig
    build: Build
    console: Console
    duplicates: dict[str, Any] = field(default_factory=dict)

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

    def take_scores(self, source: Artifact | Foreign, before: FilterConfig) -> Inventory:
        """The shards of a corpus's scores, which `before` measured."""
        shards = divided(source, self.config, before)
        return Inventory(shards, sum(len(shard) for shard in shards), [])

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
        root, settings = self.build.scratch / "screened", self.ready.model_dump_json()
        tasks = [ScreenTask(shard, settings, str(root / f"{shard.number:05d}")) for shard in inventory.shards]
        try:
            self._run(screen_shard, tasks, "filter", inventory.documents)
        finally:
            release()
        return [Path(task.out) for task in tasks]

    def finish(self, screened: Sequence[Path], tokenizer: str) -> list[Path]:
        """The second and the third pass. The files' folders, in order."""
        with self.console.progress("find duplicates", None):
            removed = find_duplicates(screened, self.config, self.build.scratch / "duplicates")
        after = [Counts.load(shard).last() for shard in screened]
        root, settings = self.build.scratch / "finished", self.config.model_dump_json()
        tasks = [
            FinishTask(
                shards=tuple(str(screened[i]) for i in members),
                numbers=tuple(members),
                removed=removed,
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
        counts = Counts([*step_names(self.config), *late_steps(self.config)])
        for folder in (*screened, *finished):
            add(counts.as_dict, Counts.load(folder).as_dict)
        for i, folder in enumerate(finished):
            for part in ("data", "dropped", "scores"):
                made, place = folder / f"{part}.parquet", self.build.path / part / f"{i:05d}.parquet"
                if made.exists():  # else a killed run has moved it already
                    place.parent.mkdir(exist_ok=True)
                    made.replace(place)
        if self.config.scores:
            self._keep_scores(inventory.shards)
        write_json(self.build.path / "counts.json", {**counts.as_dict, "damaged": inventory.damage})
        return counts

    def _keep_scores(self, shards: Sequence[Shard | ScoredShard]) -> None:
        """What they were measured with, and the files of scores that are taken over as they are."""
        folder = self.build.path / "scores"
        folder.mkdir(exist_ok=True)
        for path in sorted({shard.path for shard in shards if isinstance(shard, ScoredShard) and shard.measured}):
            taken = folder / Path(path).name
            taken.unlink(missing_ok=True)
            try:
                os.link(path, taken)  # nothing ever writes into an artifact, so two can share a file
            except OSError:
                shutil.copyfile(path, taken)
        write_json(self.build.path / SETTINGS, self.config.model_dump(mode="json", exclude=set(_NO_RESULT)))

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
