"""Sources on the disk: archives are copied record by record, everything else becomes `resource` records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmctl.console import Console
from llmctl.crawl.archive import Archive
from llmctl.crawl.config import CrawlConfig
from llmctl.formats.document import Damage, DamageList, Document
from llmctl.formats.warc import Record, is_page, read_warc, records
from llmctl.formats.web import document_files, read_documents
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
            for item in _items(path, found):
                if isinstance(item, Record):
                    archive.copy(item)
                    page, length = is_page(item), len(item.block)
                else:
                    archive.add_document(item)
                    page, length = True, len(item.text or item.html or "")
                pages, size, held = pages + page, size + page * length, held + length
                bar.advance(page)
                if held > _FLUSH:
                    archive.flush()
                    held = 0
        archive.flush()
    return pages, size


def _items(path: Path, damage: DamageList) -> Iterator[Record | Document]:
    """The records of archives and the documents of everything else."""
    if str(path).startswith("hf:"):
        yield from read_documents(path)
        return
    for file, name, reader in document_files(path):
        try:
            if reader is read_warc:
                yield from records(file, name, damage)
            else:
                yield from reader(file, name, damage)
        except OSError as e:
            damage.add(name, "", e.strerror or str(e))
