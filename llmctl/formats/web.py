"""The one door to foreign documents: `read_documents` takes whatever a person has and hands on `Document`s.

WARC, WET and ARC archives, HTML files, plain text, JSON Lines, Parquet, a folder of any of them (a `pages` or `corpus`
artifact too), and `hf:org/name`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

from llmctl.errors import UserError
from llmctl.formats.charset import decode
from llmctl.formats.document import Damage, DamageList, Document
from llmctl.formats.tables import read_hub, read_jsonl, read_parquet
from llmctl.formats.warc import read_warc

__all__ = ["Damage", "DamageList", "Document", "document_files", "read_documents"]

Reader = Callable[[Path, str, DamageList], Iterator[Document]]

# A plain text longer than this is cut at blank lines: a novel in one file would be one document, which no filter keeps
# (Gopher's limit is 100,000 words) and no split into train and validation can divide.
TEXT_PIECE = 50_000
_CANONICAL = re.compile(rb"<link\b[^>]{0,300}?\brel\s*=\s*[\"']?canonical\b[^>]{0,1000}>", re.IGNORECASE)
_HREF = re.compile(rb"\bhref\s*=\s*[\"']?(https?://[^\s\"'>]+)", re.IGNORECASE)


def read_documents(path: Path, strict: bool = False, damage: list[Damage] | None = None) -> Iterator[Document]:
    """Every document at `path`: a file, a folder, or `hf:org/name`.

    What cannot be read is appended to `damage` and passed over; with `strict` it is a UserError. A path with nothing to
    read in it is a UserError.
    """
    found = DamageList(strict, damage if damage is not None else [])
    if str(path).startswith("hf:"):
        yield from read_hub(str(path)[3:], found)
        return
    for file, name, reader in document_files(path):
        try:
            yield from reader(file, name, found)
        except OSError as e:
            found.add(name, "", e.strerror or str(e))


def document_files(path: Path) -> list[tuple[Path, str, Reader]]:
    """(file, its name relative to `path`, its reader) of everything readable at `path`, in the order of the names."""
    if path.is_file():
        reader = _by_name(path) or _by_content(path)
        if reader is None:
            raise UserError("it is no format that llmctl reads", str(path), f"formats: {', '.join(_SUFFIXES)}")
        return [(path, path.name, reader)]
    if not path.is_dir():
        raise UserError("no such file or folder", str(path), "check the path")
    found = []
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        # What an artifact's folder holds beside its documents; a leading dot or underscore hides a file.
        hidden = relative.parts[0] in ("dropped", "scores", "report.html") or any(
            p.startswith((".", "_")) for p in relative.parts
        )
        if not hidden and file.is_file() and (reader := _by_name(file)):
            found.append((file, relative.as_posix(), reader))
    if not found:
        raise UserError("nothing to read in this folder", str(path), f"formats: {', '.join(_SUFFIXES)}")
    return found


def read_html(path: Path, name: str, damage: DamageList) -> Iterator[Document]:
    """An HTML file. Its address is its `<link rel=canonical>`, else `file:///` and its name in the folder."""
    data = path.read_bytes()
    if not data.strip():
        damage.add(name, "", "the file is empty")
        return
    link = _CANONICAL.search(data[: 1 << 16])
    href = _HREF.search(link.group()) if link else None
    url = href.group(1).decode("ascii", "replace") if href else f"file:///{name}"
    yield Document(id=name, url=url, html=data, content_type="text/html", date=_modified(path), file_path=name)


def read_text(path: Path, name: str, damage: DamageList) -> Iterator[Document]:
    """A text file, in pieces of at most `TEXT_PIECE` characters."""
    data = path.read_bytes()
    if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        damage.add(name, "byte 0", "not text")
        return
    pieces = list(cut_text(decode(data), TEXT_PIECE))
    for number, piece in enumerate(pieces, 1):
        mark = f"#{number}" if len(pieces) > 1 else ""
        yield Document(
            id=name + mark,
            url=f"file:///{name}{mark}",
            text=piece,
            content_type="text/plain",
            date=_modified(path),
            file_path=name,
        )


def cut_text(text: str, size: int) -> Iterator[str]:
    """`text` in pieces of at most `size` characters, cut behind the last blank line, else line end, else space."""
    at = 0
    while len(text) - at > size:
        ends = (text.rfind(mark, at + size // 2, at + size) + len(mark) for mark in ("\n\n", "\n", " "))
        end = next((e for e in ends if e > at + size // 2), at + size)
        yield text[at:end]
        at = end
    if text[at:].strip():
        yield text[at:]


_SUFFIXES: dict[str, Reader] = {
    **dict.fromkeys((".warc", ".warc.gz", ".wet", ".wet.gz", ".arc", ".arc.gz"), read_warc),
    **dict.fromkeys((".html", ".htm", ".xhtml"), read_html),
    **dict.fromkeys((".txt", ".text", ".md", ".rst"), read_text),
    **dict.fromkeys((".jsonl", ".jsonl.gz", ".ndjson"), read_jsonl),
    ".parquet": read_parquet,
}


def _by_name(path: Path) -> Reader | None:
    name = path.name.lower()
    return next((reader for suffix, reader in _SUFFIXES.items() if name.endswith(suffix)), None)


def _by_content(path: Path) -> Reader | None:
    """The reader for a file whose name says nothing, by its first bytes."""
    with open(path, "rb") as f:
        head = f.read(512)
    if head.startswith((b"\x1f\x8b", b"WARC/", b"filedesc://")):
        return read_warc
    if head.startswith(b"PAR1"):
        return read_parquet
    if head.lstrip().startswith(b"{"):
        return read_jsonl
    if head.lstrip()[:1] == b"<":
        return read_html
    return None if b"\0" in head else read_text


def _modified(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
