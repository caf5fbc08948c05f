"""Sources on the disk: archives are copied record by record, everything else becomes `resource` records.

A record that is a gzip member of its own is copied as it stands, compressed. The others are compressed anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmctl.console import Console
from llmctl.crawl.archive import Archive
from llmctl.crawl.config import CrawlConfig
from llmctl.formats.document import Damage, DamageList, Document
from llmctl.formats.tables import read_hub
from llmctl.formats.warc import Record, is_page, read_warc, records
from llmctl.formats.web import document_files
from llmctl.workspace import Workspace

_FLUSH = 16_000_000  # characters held before they are written


def copy_local(
    sources: list[str],
    config: CrawlConfig,
    workspace: Workspace,
    folder: Path,
    console: Console,
    damage: list[Damage],
) -> tuple[int, int]:
    """Copy every page of `sources` into `folder`: (pages, bytes). It begins anew after a kill: copying is quick."""
    archive = Archive(folder, "local", config.segment_bytes)
    archive.cut(0, 0)
    found = DamageList(config.strict, damage)
    pages = size = held = 0
    with console.progress("copy", None, "pages") as bar:
        for source in sources:
            path = workspace.resolve(source, ("pages",), files=True).path
            for item, member in _items(path, found):
                if isinstance(item, Document):
                    archive.add_document(item)
                    page, length = True, len(item.text or item.html or "")
                else:
                    copy_record(archive, item, member)
                    page, length = is_page(item), len(item.block)
                pages, size, held = pages + page, size + page * length, held + length
                bar.advance(page)
                if held > _FLUSH:
                    archive.flush()
                    held = 0
        archive.flush()
    return pages, size


def copy_record(archive: Archive, record: Record, member: bytes) -> None:
    """Put a record into `archive`: its own gzip member where it has one, and states a version that readers know."""
    if member and record.version in ("WARC/1.0", "WARC/1.1"):
        archive.add_member(member)
    else:
        archive.copy(record)


def members(file: Path, name: str, damage: DamageList, start: int = 0) -> Iterator[tuple[Record, bytes]]:
    """The whole records of an archive from byte `start` on, each with the gzip member that holds it alone, if any."""
    with open(file, "rb") as f:
        for record in records(file, name, damage, start):
            f.seek(record.offset)
            yield record, b"" if record.end is None else f.read(record.end - record.offset)


def _items(path: Path, damage: DamageList) -> Iterator[tuple[Record | Document, bytes]]:
    """The records of archives, with their gzip members, and the documents of everything else."""
    if str(path).startswith("hf:"):
        yield from ((document, b"") for document in read_hub(str(path)[3:], damage))
        return
    for file, name, reader in document_files(path):
        try:
            if reader is read_warc:
                yield from members(file, name, damage)
            else:
                yield from ((document, b"") for document in reader(file, name, damage))
        except OSError as e:
            damage.add(name, "", e.strerror or str(e))
