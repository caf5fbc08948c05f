"""The texts of a corpus, one string a document, from an artifact or from a person's own files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.errors import UserError
from llmctl.model.tokenizer import well_formed
from llmctl.workspace import Artifact, Foreign

if TYPE_CHECKING:
    from llmctl.formats.web import Damage


class Texts:
    """The documents of a corpus; iterating again reads them again, in the same order. Empty ones are left out.

    `damage` lists what the last reading could not read of a person's own files. A damaged artifact is an error.
    """

    def __init__(self, source: Artifact | Foreign) -> None:
        self.source = source
        self.damage: list[Damage] = []

    def __iter__(self) -> Iterator[str]:
        found = self._shards() if isinstance(self.source, Artifact) else self._foreign()
        return (well_formed(text) for text in found if text)

    def size(self) -> tuple[int, bool]:
        """(bytes, whether these are the bytes of the text): the text of an artifact's shards, else the files' sizes."""
        if isinstance(self.source, Artifact):
            return sum(_text_bytes(path) for path in self._shard_files()), True
        path = self.source.path
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        return sum(p.stat().st_size for p in files), False

    def _shard_files(self) -> list[Path]:
        assert isinstance(self.source, Artifact)
        return [self.source.file(f) for f in self.source.files(".parquet") if f.startswith("data/")]

    def _shards(self) -> Iterator[str]:
        for path in self._shard_files():
            yield from _read_text_column(path)

    def _foreign(self) -> Iterator[str]:
        from llmctl.formats.web import read_documents

        self.damage = []
        return (d.text for d in read_documents(self.source.path, damage=self.damage) if d.text)


def _read_text_column(path: Path) -> Iterator[str]:
    """The `text` column of a corpus shard, a batch of rows at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=["text"]):
                yield from (text or "" for text in batch.column("text").to_pylist())
    except (OSError, pyarrow.ArrowException, KeyError) as e:
        raise UserError(f"damaged, or without a text column: {e}", str(path), "make the corpus again") from e


def _text_bytes(path: Path) -> int:
    """The size of a shard's text column before compression, from the file's footer."""
    import pyarrow
    import pyarrow.parquet

    try:
        meta = pyarrow.parquet.read_metadata(path)
    except (OSError, pyarrow.ArrowException) as e:
        raise UserError(f"damaged: {e}", str(path), "make the corpus again") from e
    column = meta.schema.names.index("text") if "text" in meta.schema.names else 0
    return sum(meta.row_group(g).column(column).total_uncompressed_size for g in range(meta.num_row_groups))
