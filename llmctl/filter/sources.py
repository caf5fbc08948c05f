"""What there is to read, and how it is divided: into shards that depend on the input alone, not on who works on them.

The documents of all files are counted first (reading is a small part of the work, extraction most of it), then cut, in
their order, into shards of about `_SHARD` documents. A big file becomes at most `_PARTS` shards, for each of them reads
the file from its beginning up to its part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llmctl.errors import UserError
from llmctl.formats.document import DamageList, Document
from llmctl.formats.web import document_files, read_documents
from llmctl.parallel import tick
from llmctl.workspace import Artifact, Foreign

_SHARD = 128  # documents: seconds of extraction, so a kill loses little and few cores idle at the end
_PARTS = 16
# What an artifact's folder holds besides documents is not for reading.
_DATA = {"pages": (".warc.gz", ".warc"), "corpus": (".parquet",)}

File = tuple[str, str]  # path, name relative to the input


@dataclass(frozen=True)
class Shard:
    """Documents `start` to `stop` (None: to the end) of those in `files`, one after the other."""

    number: int
    files: tuple[File, ...]
    start: int
    stop: int | None
    has_current_scores: ClassVar[bool] = False

    def __str__(self) -> str:
        more = f" and {len(self.files) - 1} more files" if len(self.files) > 1 else ""
        return f"shard {self.number} ({self.files[0][1]}{f' from document {self.start:,}' if self.start else ''}{more})"


def input_files(source: Artifact | Foreign) -> list[File]:
    """The files of an input, in order. UserError where there is nothing to read."""
    if str(source.path).startswith("hf:"):
        return [(str(source.path), str(source.path))]
    found = [(str(path), name) for path, name, _ in document_files(source.path)]
    if isinstance(source, Artifact):
        found = [(path, name) for path, name in found if name.endswith(_DATA[source.kind])]
    if not found:
        raise UserError("nothing to read in it", str(source.path), "make it again")
    return found


def count_documents(task: tuple[int, Sequence[File], bool]) -> tuple[int, dict[str, Any]]:
    """(number, files, strict) -> the number; the documents in each file (None: a hub tells no count); the damage."""
    number, files, strict = task
    damage, counts = DamageList(strict), []
    for file in files:
        counts.append(None if _is_hub(file) else sum(1 for _ in _read(file, damage)))
        tick()
    return number, {"counts": counts, "damage": [[d.file, d.where, d.what] for d in damage]}


def divide(files: Sequence[File], counts: Sequence[int | None]) -> list[Shard]:
    """The shards, numbered in the order of the documents."""
    shards: list[Shard] = []
    small: list[File] = []
    waiting = 0

    def close() -> None:
        nonlocal waiting
        if waiting:
            shards.append(Shard(len(shards), tuple(small), 0, None))
        small.clear()
        waiting = 0

    for file, count in zip(files, counts, strict=True):
        if count is not None and waiting + count <= _SHARD:
            small.append(file)
            waiting += count
            continue
        close()
        bounds = _bounds(count)
        shards += [Shard(len(shards) + i, (file,), start, stop) for i, (start, stop) in enumerate(bounds)]
    close()
    return shards


def documents(shard: Shard) -> Iterator[Document]:
    """The documents of a shard. Damage was noted when they were counted."""
    found = itertools.chain.from_iterable(_read(file, DamageList()) for file in shard.files)
    return itertools.islice(found, shard.start, shard.stop)


def _bounds(count: int | None) -> list[tuple[int, int | None]]:
    if count is None:
        return [(0, None)]
    parts = min(-(-count // _SHARD), _PARTS)
    cuts = [count * i // parts for i in range(parts + 1)]
    return list(itertools.pairwise(cuts))


def _read(file: File, damage: DamageList) -> Iterator[Document]:
    path, name = file
    if _is_hub(file):
        yield from read_documents(Path(path))
        return
    _, _, reader = document_files(Path(path))[0]
    try:
        yield from reader(Path(path), name, damage)
    except OSError as e:
        damage.add(name, "", e.strerror or str(e))


def _is_hub(file: File) -> bool:
    return file[0].startswith("hf:")
