"""The texts of a corpus, one string a document, from an artifact or from a person's own files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmctl.errors import UserError
from llmctl.workspace import Artifact, Foreign


class Texts:
    """The documents of a corpus; iterating again reads them again, in the same order. Empty ones are left out."""

    def __init__(self, source: Artifact | Foreign) -> None:
        if isinstance(source, Foreign) and source.kind == "hub":
            raise UserError(f"{source.name}: a corpus on the hub is not read yet", fix="download it as Parquet first")
        self.source = source

    def __iter__(self) -> Iterator[str]:
        found = self._shards() if isinstance(self.source, Artifact) else self._foreign(self.source.path)
        return (well_formed(text) for text in found if text)

    def size(self) -> int:
        """Bytes on disk."""
        if isinstance(self.source, Artifact):
            return self.source.bytes
        path = self.source.path
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        return sum(p.stat().st_size for p in files)

    def _shards(self) -> Iterator[str]:
        assert isinstance(self.source, Artifact)
        for relative in self.source.files(".parquet"):
            if relative.startswith("data/"):
                yield from read_parquet(self.source.file(relative))

    def _foreign(self, path: Path) -> Iterator[str]:
        from llmctl.formats.web import read_documents

        return (d.text for d in read_documents(path) if d.text)


def read_parquet(path: Path) -> Iterator[str]:
    """The `text` column of a Parquet file, a row group at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=["text"]):
                yield from (text or "" for text in batch.column(0).to_pylist())
    except (OSError, pyarrow.ArrowException, KeyError, IndexError) as e:
        raise UserError(f"damaged, or without a text column: {e}", str(path), "make the corpus again") from e


def well_formed(text: str) -> str:
    """`text` with lone surrogates, which no UTF-8 can hold (JSON can), replaced by U+FFFD."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
