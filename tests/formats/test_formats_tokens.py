"""Token shards: what is written is read, at any cut into shards, after any kill; damage is named."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.formats.tokens import TokenReader, TokenWriter, dtype_for, read_meta, write_meta

documents = st.lists(st.lists(st.integers(0, 65535), min_size=1, max_size=12), max_size=20)


def write(folder: Path, texts: list[list[int]], shard_tokens: int = 10, dtype: str = "uint16") -> None:
    writers = [TokenWriter(folder, split, dtype, shard_tokens) for split in ("train", "val")]
    for text in texts:
        writers[0].add(text, text_bytes=2 * len(text))
    for w in writers:
        w.close()
    write_meta(folder, writers, vocab_size=1 << 16, eos_id=0, tokenizer="digest")


@given(documents, st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_every_document_and_every_window_is_read_back(texts: list[list[int]], shard_tokens: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), texts, shard_tokens)
        reader = TokenReader(name, "train")
        flat = [i for t in texts for i in t]
        assert (reader.documents, reader.tokens, reader.bytes) == (len(texts), len(flat), 2 * len(flat))
        assert [reader.document(n).tolist() for n in range(len(texts))] == texts
        for start in range(0, len(flat) + 1, 3):
            for length in (0, 1, len(flat) - start):
                if start + length <= len(flat):
                    assert reader.window(start, length).tolist() == flat[start : start + length]
        owners = [n for n, t in enumerate(texts) for _ in t]
        assert reader.segments(0, len(flat)).tolist() == owners
        assert reader.ends.tolist() == np.cumsum([len(t) for t in texts]).tolist()
        assert (TokenReader(name, "val").documents, TokenReader(name, "val").tokens) == (0, 0)


def test_no_document_crosses_a_shard(tmp_path: Path) -> None:
    write(tmp_path, [[1] * 7, [2] * 7, [3] * 7], shard_tokens=10)
    assert [p.stat().st_size for p in sorted(tmp_path.glob("train-*.bin"))] == [28, 14]


@given(documents.filter(len), st.data())
@settings(max_examples=60, deadline=None)
def test_a_killed_writer_goes_on_with_the_same_bytes(texts: list[list[int]], data: st.DataObject) -> None:
    saved = data.draw(st.integers(0, len(texts)))
    lost = data.draw(st.integers(saved, len(texts)))
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        write(Path(a), texts)
        killed = TokenWriter(Path(b), "train", "uint16", 10)
        for text in texts[:saved]:
            killed.add(text, 2 * len(text))
        state = json.loads(json.dumps(killed.state()))
        for text in texts[saved:lost]:  # on the disk, but in no saved state
            killed.add(text, 2 * len(text))
        killed.close()
        if lost > saved:
            with open(sorted(Path(b).glob("*.bin"))[-1], "ab") as f:
                f.write(b"\1")  # half an id
        resumed = TokenWriter(Path(b), "train", "uint16", 10, state)
        for text in texts[saved:]:
            resumed.add(text, 2 * len(text))
        resumed.close()
        write_meta(
            Path(b),
            [resumed, TokenWriter(Path(b), "val", "uint16", 10)],
            vocab_size=1 << 16,
            eos_id=0,
            tokenizer="digest",
        )
        assert {p.name: p.read_bytes() for p in Path(a).iterdir()} == {
            p.name: p.read_bytes() for p in Path(b).iterdir()
        }


@pytest.mark.parametrize(
    ("vocab", "dtype"), [(256, "uint16"), (65536, "uint16"), (65537, "uint32"), (200019, "uint32")]
)
def test_the_type_holds_every_id(tmp_path: Path, vocab: int, dtype: str) -> None:
    assert dtype_for(vocab) == dtype
    write(tmp_path, [[0, vocab - 1]], dtype=dtype)
    assert TokenReader(tmp_path, "train").window(0, 2).tolist() == [0, vocab - 1]


def test_a_window_beyond_the_end_is_a_defect(tmp_path: Path) -> None:
    write(tmp_path, [[1, 2, 3]])
    for start, length in ((0, 4), (3, 1), (-1, 1)):
        with pytest.raises(AssertionError):
            TokenReader(tmp_path, "train").window(start, length)


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda p: (p / "meta.json").unlink(), "meta.json"),
        (lambda p: (p / "meta.json").write_text("{"), "meta.json"),
        (lambda p: (p / "meta.json").write_text('{"format": "other"}'), "meta.json"),
        (lambda p: (p / "meta.json").write_text(json.dumps(read_meta(p) | {"splits": {}})), "no split 'train'"),
        (lambda p: (p / "meta.json").write_text(json.dumps(read_meta(p) | {"dtype": "nonsense"})), "meta.json"),
        (lambda p: (p / "train-00000.bin").unlink(), "train-00000.bin"),
        (lambda p: (p / "train-00000.bin").write_bytes(b"\0" * 3), "train-00000.bin"),
        (lambda p: (p / "train-00001.idx").write_bytes(b""), "train-00001.idx"),
        (lambda p: (p / "train-00000.idx").write_bytes(np.asarray([9, 3], "<u8").tobytes()), "train-00000.idx"),
        (lambda p: (p / "train-00000.idx").write_bytes(np.asarray([4, 99], "<u8").tobytes()), "train-00000.idx"),
    ],
)
def test_damage_is_named(tmp_path: Path, harm, named: str) -> None:
    write(tmp_path, [[1] * 7, [2] * 7, [3] * 7])
    harm(tmp_path)
    with pytest.raises(UserError) as e:
        TokenReader(tmp_path, "train")
    assert named in e.value.message() and str(tmp_path) in e.value.message()
