"""Token shards on disk: flat memory-mapped ids with a document index beside them.

`SPLIT-NNNNN.bin` holds ids as little-endian uint16 or uint32, `SPLIT-NNNNN.idx` where each document ends in it (uint64,
counted in tokens, within the shard), and `meta.json` what a reader must know and check. No document crosses a shard.
Every document ends with the end-of-text id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from llmctl.errors import UserError

FORMAT, VERSION = "llmctl-tokens", 1
META = "meta.json"
_AGAIN = "run `llmctl tokenize` again"


def dtype_for(vocab_size: int) -> str:
    """The smallest type that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


class TokenWriter:
    """Appends documents to the shards of one split; a new shard begins where one holds `shard_tokens` or more.

    `state()` makes everything so far durable and describes it; a writer given that `state` goes on from there, whatever
    a kill left behind it. So the shards depend on the documents alone, not on how often the work was interrupted.
    """

    def __init__(
        self, folder: Path, split: str, dtype: str, shard_tokens: int, state: Mapping[str, Any] | None = None
    ) -> None:
        self.folder, self.split, self.dtype, self.shard_tokens = folder, split, np.dtype(dtype), shard_tokens
        self.shards: list[dict[str, int]] = [dict(s) for s in (state or {}).get("shards", [])]
        self.bytes = int((state or {}).get("bytes", 0))
        self._bin: IO[bytes] | None = None
        self._idx: IO[bytes] | None = None
        self._drop_unknown()
        if self.shards:
            self._open()

    @property
    def documents(self) -> int:
        """Documents written."""
        return sum(s["documents"] for s in self.shards)

    @property
    def tokens(self) -> int:
        """Tokens written."""
        return sum(s["tokens"] for s in self.shards)

    def add(self, ids: Sequence[int] | np.ndarray, text_bytes: int = 0) -> None:
        """Append one document. `text_bytes`: the size of its text in UTF-8."""
        if not self.shards or self.shards[-1]["tokens"] >= self.shard_tokens:
            self.close()
            self.shards.append({"documents": 0, "tokens": 0})
            self._open()
        shard = self.shards[-1]
        shard["documents"] += 1
        shard["tokens"] += len(ids)
        self.bytes += text_bytes
        assert self._bin is not None and self._idx is not None
        self._bin.write(np.asarray(ids, self.dtype.newbyteorder("<")).tobytes())
        self._idx.write(np.asarray([shard["tokens"]], "<u8").tobytes())

    def state(self) -> dict[str, Any]:
        """What has been written, durably, as a JSON value."""
        for f in (self._bin, self._idx):
            if f is not None:
                f.flush()
                os.fsync(f.fileno())
        return {"shards": [dict(s) for s in self.shards], "bytes": self.bytes}

    def close(self) -> None:
        """Close the shard's files."""
        for f in (self._bin, self._idx):
            if f is not None:
                f.close()
        self._bin = self._idx = None

    def _open(self) -> None:
        """Open the last shard behind what it is known to hold."""
        number, shard = len(self.shards) - 1, self.shards[-1]
        sizes = (shard["tokens"] * self.dtype.itemsize, shard["documents"] * 8)
        opened = []
        for path, size in zip(shard_files(self.folder, self.split, number), sizes, strict=True):
            f = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115 - held until close
            f.truncate(size)
            f.seek(size)
            opened.append(f)
        self._bin, self._idx = opened

    def _drop_unknown(self) -> None:
        known = {p for n in range(len(self.shards)) for p in shard_files(self.folder, self.split, n)}
        for suffix in ("bin", "idx"):
            for path in self.folder.glob(f"{self.split}-*.{suffix}"):
                if path not in known:
                    path.unlink()


def shard_files(folder: Path, split: str, number: int) -> tuple[Path, Path]:
    """The paths of a shard's ids and of its index."""
    return folder / f"{split}-{number:05d}.bin", folder / f"{split}-{number:05d}.idx"


def write_meta(folder: Path, writers: Sequence[TokenWriter], **facts: Any) -> None:
    """Write `meta.json`: the writers' splits and further `facts` (vocab_size, eos_id, tokenizer digest)."""
    splits = {
        w.split: {"documents": w.documents, "tokens": w.tokens, "bytes": w.bytes, "shards": w.shards} for w in writers
    }
    meta = {"format": FORMAT, "version": VERSION, "dtype": writers[0].dtype.name, **facts, "splits": splits}
    (folder / META).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def read_meta(folder: Path) -> dict[str, Any]:
    """The contents of `meta.json`. UserError where it is missing, damaged, or of another format."""
    path = folder / META
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"cannot read it: {e.strerror}", str(path), "tokens are made by `llmctl tokenize`") from e
    except ValueError as e:
        raise UserError(f"damaged: {e}", str(path), _AGAIN) from e
    if not isinstance(found, dict) or found.get("format") != FORMAT or found.get("version") != VERSION:
        raise UserError("not llmctl's tokens, or of another version", str(path), _AGAIN)
    return found


class TokenReader:
    """One split, memory-mapped: opening it costs nothing, and processes share one copy."""

    def __init__(self, folder: str | Path, split: str) -> None:
        self.folder, self.split = Path(folder), split
        self.meta = read_meta(self.folder)
        try:
            found = self.meta["splits"][split]
            self.dtype = np.dtype(self.meta["dtype"]).newbyteorder("<")
            self._sizes = [(int(s["tokens"]), int(s["documents"])) for s in found["shards"]]
            self.bytes = int(found["bytes"])
        except (KeyError, TypeError, ValueError) as e:
            raise UserError(f"damaged: no split {split!r} in it ({e!r})", str(self.folder / META), _AGAIN) from e
        shards = [self._map(n, *size) for n, size in enumerate(self._sizes)]
        self._ids = [ids for ids, _ in shards]
        self._ends = [ends for _, ends in shards]
        self._first = np.cumsum([0, *(tokens for tokens, _ in self._sizes)])  # where each shard begins

    @property
    def tokens(self) -> int:
        """How many tokens the split holds."""
        return int(self._first[-1])

    @property
    def documents(self) -> int:
        """How many documents the split holds."""
        return sum(documents for _, documents in self._sizes)

    @cached_property
    def ends(self) -> np.ndarray:
        """(documents,) int64: where each document ends, counted over the whole split."""
        moved = [e.astype(np.int64) + first for e, first in zip(self._ends, self._first[:-1], strict=True)]
        return np.concatenate(moved) if moved else np.zeros(0, np.int64)

    def window(self, start: int, length: int) -> np.ndarray:
        """(length,) ids from `start` on; a view where one shard holds them all. They must all be there."""
        assert start >= 0 and length >= 0 and start + length <= self.tokens, (start, length, self.tokens)
        shard = int(np.searchsorted(self._first, start, side="right")) - 1
        pieces, at = [], start
        while at < start + length:
            offset = at - int(self._first[shard])
            pieces.append(self._ids[shard][offset : offset + start + length - at])
            at += len(pieces[-1])
            shard += 1
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, self.dtype), *pieces])

    def document(self, index: int) -> np.ndarray:
        """The ids of one document, its end-of-text included."""
        start = int(self.ends[index - 1]) if index else 0
        return self.window(start, int(self.ends[index]) - start)

    def segments(self, start: int, length: int) -> np.ndarray:
        """(length,) int64: the number of the document that each token of a window belongs to."""
        return np.searchsorted(self.ends, np.arange(start, start + length), side="right")

    def _map(self, number: int, tokens: int, documents: int) -> tuple[np.ndarray, np.ndarray]:
        """Check and map one shard."""
        found = []
        kinds = ((self.dtype, tokens), (np.dtype("<u8"), documents))
        for path, (dtype, count) in zip(shard_files(self.folder, self.split, number), kinds, strict=True):
            size = path.stat().st_size if path.is_file() else None
            if size != count * dtype.itemsize:
                what = "missing" if size is None else f"damaged: {size} bytes, {count * dtype.itemsize} expected"
                raise UserError(what, str(path), _AGAIN)
            found.append(np.memmap(path, dtype, "r", shape=(count,)) if count else np.zeros(0, dtype))
        ids, ends = found
        if documents and (int(ends[-1]) != tokens or bool(np.any(ends[1:] < ends[:-1]))):
            raise UserError("damaged: the documents do not end where they should", str(path), _AGAIN)
        return ids, ends
