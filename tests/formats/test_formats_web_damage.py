"""Every real archive, and small ones cut at every byte and bent at every byte, against warcio and FastWARC."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator as FastWarc
from warcio.archiveiterator import ArchiveIterator

from llmctl.errors import UserError
from llmctl.formats.warc import http_response, is_page, one_record, payload, records
from llmctl.formats.web import Damage, DamageList, read_documents

# What is known to be wrong with each archive that is not sound; the rest must read without a complaint.
DAMAGED = {"chatnoir-resiliparse__clipped.warc.gz": "middle of a record"}
# FastWARC knows no ARC, and finds the end of this head of lines that end in \\r\\r\\n elsewhere.
NOT_FASTWARC = ("warcio__example.arc.gz", "pywb__missing-status-text.warc")
# Several records in one gzip member: warcio refuses it, we and FastWARC read it.
NOT_WARCIO = ("warcio__example-bad.warc.gz.bad",)


def archives() -> list[str]:
    return [
        "aut__example.warc.gz",
        "chatnoir-resiliparse__clipped.warc.gz",
        "chatnoir-resiliparse__warcfile.warc.gz",
        "pywb__dupes.warc.gz",
        "pywb__example-url-agnostic-orig.warc.gz",
        "pywb__example-url-agnostic-revisit.warc.gz",
        "pywb__example-wget-1-14.warc.gz",
        "pywb__example-wpull.warc.gz",
        "pywb__iana.warc.gz",
        "pywb__missing-status-text.warc",
        "warcio__example-bad.warc.gz.bad",
        "warcio__example-digest.warc",
        "warcio__example-iana.org-chunked.warc",
        "warcio__example-wget-bad-target-uri.warc.gz",
        "warcio__example.arc.gz",
        "warcio__example.warc",
        "warcio__example.warc.gz",
        "warcio__post-test.warc.gz",
        "whirlwind-python__whirlwind.warc",
        "whirlwind-python__whirlwind.warc.gz",
        "whirlwind-python__whirlwind.warc.wat",
        "whirlwind-python__whirlwind.warc.wet",
        "whirlwind-python__whirlwind.warc.wet.gz",
    ]


def test_the_list_is_complete(data: Path) -> None:
    assert archives() == sorted(p.name for p in (data / "web" / "warc").iterdir())


@pytest.mark.parametrize("name", archives())
def test_every_archive_agrees_with_warcio_and_fastwarc(data: Path, name: str) -> None:
    path, damage = data / "web" / "warc" / name, DamageList()
    ours = [(r.type, r.url.strip("<>"), r.block) for r in records(path, name, damage)]
    if name in DAMAGED:
        assert len(damage) == 1 and DAMAGED[name] in damage.found[0].what
        return
    assert not damage.found and ours
    if name not in NOT_WARCIO:
        with open(path, "rb") as f:
            archive = ArchiveIterator(f, no_record_parse=True, arc2warc=True)
            theirs = [
                (r.rec_type, (r.rec_headers.get_header("WARC-Target-URI") or "").strip("<>"), r.raw_stream.read())
                for r in archive
            ]
        assert ours == theirs
    if name not in NOT_FASTWARC:
        with open(path, "rb") as f:
            fast = [r.reader.read() for r in FastWarc(f, parse_http=False)]
        assert [block for _, _, block in ours] == fast


def test_revisits_are_no_pages(data: Path) -> None:
    kinds: Counter[tuple[str, bool]] = Counter()
    for name in ("pywb__dupes.warc.gz", "pywb__example-url-agnostic-revisit.warc.gz"):
        kinds += Counter((r.type, is_page(r)) for r in records(data / "web" / "warc" / name, name, DamageList()))
    assert kinds["revisit", False] > 1 and kinds["revisit", True] == 0


def test_a_status_line_without_its_text(data: Path) -> None:
    (record,) = records(data / "web" / "warc" / "pywb__missing-status-text.warc", "", DamageList())
    answer = http_response(record)
    assert answer is not None and answer[0] == 302 and not is_page(record)


@pytest.fixture
def small(data: Path) -> Path:
    """A real archive of a few kilobytes: warcinfo, response, request, revisit."""
    return data / "web" / "warc" / "warcio__example.warc.gz"


def bodies(path: Path, damage: list[Damage]) -> list[bytes]:
    found = DamageList(found=damage)
    kept = list(records(path, path.name, found))
    for record in kept:
        payload(record), is_page(record), http_response(record)
    return [r.block for r in kept]


@pytest.mark.parametrize("compressed", [True, False])
def test_cut_at_every_byte(small: Path, tmp_path: Path, compressed: bool) -> None:
    raw = small.read_bytes() if compressed else gzip.decompress(small.read_bytes())
    path = tmp_path / "cut.warc"
    path.write_bytes(raw)
    whole = bodies(path, [])
    ends = [r.end or r.offset for r in records(path, "", DamageList())]
    for at in range(0, len(raw), 1 if compressed else 7):
        path.write_bytes(raw[:at])
        damage: list[Damage] = []
        found = bodies(path, damage)
        assert found == whole[: len(found)]
        if compressed:
            assert len(found) == sum(end <= at for end in ends)
            assert bool(damage) == (at not in ends)


@pytest.mark.parametrize("compressed", [True, False])
def test_bent_at_every_byte(small: Path, tmp_path: Path, compressed: bool) -> None:
    raw = small.read_bytes() if compressed else gzip.decompress(small.read_bytes())
    path = tmp_path / "bent.warc"
    path.write_bytes(raw)
    whole, starts = bodies(path, []), [r.offset for r in records(path, "", DamageList())]
    rng = random.Random(1)
    for at in range(0, len(raw), 3):
        bent = bytearray(raw)
        bent[at] ^= 1 << rng.randrange(8)
        path.write_bytes(bent)
        damage: list[Damage] = []
        found = bodies(path, damage)
        hit = sum(start <= at for start in starts) - 1
        assert found[: max(hit, 0)] == whole[: max(hit, 0)]
        if compressed:  # the checksum of the member sees it, except in the few bytes of its head that mean nothing
            assert found == whole or (damage and found == whole[:hit] + whole[hit + 1 :])


def test_a_record_that_claims_ten_gigabytes(tmp_path: Path) -> None:
    head = (
        b"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: http://e.com/%d\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
    )
    records_ = [head % (1, 1, b"a"), head % (2, 10_000_000_000, b"b"), head % (3, 1, b"c")]
    for name, write in (("a.warc", bytes), ("a.warc.gz", gzip.compress)):
        (tmp_path / name).write_bytes(b"".join(map(write, records_)))
        damage = DamageList()
        tracemalloc.start()
        found = [r.block for r in records(tmp_path / name, name, damage)]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found == [b"a", b"c"] and len(damage) == 1
        assert "10,000,000,000 bytes" in damage.found[0].what and peak < 5_000_000


@pytest.mark.parametrize("length", [0, 1, 4, 50])
def test_a_wrong_content_length_costs_one_record(tmp_path: Path, length: int) -> None:
    head = (
        b"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: http://e.com/%d\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
    )
    records_ = [head % (1, 5, b"first"), head % (2, length, b"wrong"), head % (3, 5, b"third")]
    for name, write in (("a.warc", bytes), ("a.warc.gz", gzip.compress)):
        (tmp_path / name).write_bytes(b"".join(map(write, records_)))
        damage = DamageList()
        found = [r.block for r in records(tmp_path / name, name, damage)]
        assert (found[0], found[-1]) == (b"first", b"third") and len(found) == 2 and len(damage) == 1


def test_one_record() -> None:
    record = b"WARC/1.0\r\nWARC-Type: resource\r\nContent-Length: 3\r\n\r\nabc\r\n\r\n"
    assert one_record(gzip.compress(record)).block == b"abc"
    whole = gzip.compress(record)
    for bad in (
        whole[:-1],
        whole + b"x",
        whole + whole,
        gzip.compress(record * 2),
        gzip.compress(b"text"),
        b"",
        record,
    ):
        with pytest.raises(ValueError, match=r"record|corrupt"):
            one_record(bad)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "x", "gzip, gzip"])
def test_content_encodings_that_lie(tmp_path: Path, encoding: str) -> None:
    block = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: {encoding}\r\n\r\n<p>plain".encode()
    head = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://e.com/\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
    path = tmp_path / "a.warc"
    path.write_bytes(head % (len(block), block))
    (document,) = read_documents(path)
    assert document.html == b"<p>plain"


def test_a_parquet_with_nulls_and_odd_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    table = pa.table({"text": pa.array([None, "a", None], pa.string()), "url": [None, "u", None], "n": [1, None, 3]})
    pq.write_table(table, path)
    ((text, url),) = [(d.text, d.url) for d in read_documents(path)]
    assert (text, url) == ("a", "u")
    pq.write_table(pa.table({"text": pa.array([None, None], pa.string())}), path)
    assert not list(read_documents(path))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert not list(read_documents(path))
    pq.write_table(pa.table({"text": [1, 2]}), path)
    with pytest.raises(UserError, match=r"`text` is int64, not text"):
        list(read_documents(path))
    pq.write_table(pa.table({"words": ["a"], "n": [1]}), path)
    with pytest.raises(UserError, match=r"no `text` column[\s\S]*words, n"):
        list(read_documents(path))


def test_parquet_bent_at_many_bytes(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(300)]}), path, row_group_size=100)
    raw, rng = path.read_bytes(), random.Random(3)
    for at in [*range(0, len(raw), 29), *range(len(raw) - 60, len(raw))]:
        bent = bytearray(raw)
        bent[at] ^= 1 << rng.randrange(8)
        path.write_bytes(bent)
        try:
            list(read_documents(path, damage=[]))
        except UserError as e:  # the name of the column can be bent
            assert "column" in e.what or "is " in e.what


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n{"text": "\xff\xfe bad"}\n{"text": "\\ud800 lone"}\n')
    french = "Le garçon a mangé une crème brûlée à l'hôtel, où la fenêtre était fermée jusqu'à Noël. "
    (tmp_path / "b.txt").write_bytes(french.encode("latin-1") * 3)
    damage: list[Damage] = []
    found = {d.id: d.text or "" for d in read_documents(tmp_path, damage=damage)}
    assert found["a.jsonl#1"] == "good" and found["b.txt"].startswith(french)
    assert [d.where for d in damage] == ["line 2"] and "UTF-8" in damage[0].what
    for text in found.values():
        text.encode("utf-8")


def test_json_rows_that_are_hostile(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        "[" * 100_000,
        '{"a":' * 100_000,
        json.dumps({"text": 5}),
        "null",
        '{"text": "ok"}',
        '{"text": 1e999}',
        "1" * 5000,
    ]
    path.write_text("\n".join(rows))
    damage: list[Damage] = []
    assert [d.text for d in read_documents(path, damage=damage)] == ["ok"]
    assert len(damage) == 6
