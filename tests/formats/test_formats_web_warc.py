"""WARC reading: against warcio on sound files, and on files cut and bent at every place."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from llmctl.errors import UserError
from llmctl.formats.warc import content_type, http_response, records
from llmctl.formats.web import Damage, DamageList, read_documents

SOUND = (
    "aut__example.warc.gz",
    "chatnoir-resiliparse__warcfile.warc.gz",
    "pywb__iana.warc.gz",
    "warcio__example.warc",
    "warcio__example-iana.org-chunked.warc",
    "warcio__example.arc.gz",
    "whirlwind-python__whirlwind.warc",
    "whirlwind-python__whirlwind.warc.wet.gz",
)


def page(number: int) -> bytes:
    return f"<html><body><p>Page number {number}. {'word ' * number}</p></body></html>".encode()


def write_warc(path: Path, pages: int, compress: bool = True) -> list[int]:
    """`pages` responses; the offset behind each record."""
    ends = []
    with open(path, "wb") as f:
        writer = WARCWriter(f, gzip=compress, warc_version="1.1")
        for i in range(pages):
            head = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
            body = page(i)
            record = writer.create_warc_record(
                f"http://example.com/{i}", "response", payload=io.BytesIO(body), length=len(body), http_headers=head
            )
            writer.write_record(record)
            ends.append(f.tell())
    return ends


@pytest.mark.parametrize("name", SOUND)
def test_sound_archives_agree_with_warcio(data: Path, name: str) -> None:
    path = data / "web" / "warc" / name
    damage = DamageList()
    ours = [(r.type, r.url, len(r.block)) for r in records(path, name, damage)]
    with open(path, "rb") as f:
        reference = [
            (r.rec_type, r.rec_headers.get_header("WARC-Target-URI") or "", len(r.raw_stream.read()))
            for r in ArchiveIterator(f, no_record_parse=True, arc2warc=True)
        ]
    assert ours == reference
    assert not damage.found


def test_payloads_are_unchunked_and_inflated_as_by_warcio(data: Path) -> None:
    path = data / "web" / "warc" / "pywb__iana.warc.gz"
    ours = [http_response(r) for r in records(path, "", DamageList()) if r.type == "response"]
    with open(path, "rb") as f:
        reference = [r.content_stream().read() for r in ArchiveIterator(f) if r.rec_type == "response"]
    assert [answer[2] if answer else b"" for answer in ours] == reference


def test_pages_of_a_common_crawl_file(data: Path) -> None:
    (document,) = read_documents(data / "web" / "warc" / "whirlwind-python__whirlwind.warc.gz")
    assert document.url == "https://an.wikipedia.org/wiki/Escopete"
    assert document.dump == "CC-MAIN-2024-22"
    assert document.id.startswith("<urn:uuid:")
    assert "Escopete" in document.markup()
    (text,) = read_documents(data / "web" / "warc" / "whirlwind-python__whirlwind.warc.wet.gz")
    assert text.html is None and "Escopete" in (text.text or "")


def test_only_successful_pages_are_documents(data: Path) -> None:
    found = list(read_documents(data / "web" / "warc" / "pywb__iana.warc.gz"))
    assert 10 < len(found) < 40
    assert {d.content_type for d in found} <= {"text/html", "text/plain"}


def test_a_cut_file_gives_the_whole_records_and_names_the_rest(data: Path) -> None:
    damage: list[Damage] = []
    assert not list(read_documents(data / "web" / "warc" / "chatnoir-resiliparse__clipped.warc.gz", damage=damage))
    assert len(damage) == 1 and "middle of a record" in damage[0].what
    with pytest.raises(UserError, match="clipped"):
        list(read_documents(data / "web" / "warc" / "chatnoir-resiliparse__clipped.warc.gz", strict=True))


@pytest.mark.parametrize("compress", [True, False])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 1.0))
def test_cut_anywhere(tmp_path: Path, compress: bool, share: float) -> None:
    path = tmp_path / "cut.warc"
    ends = write_warc(path, 5, compress)
    whole = path.read_bytes()
    at = int(share * len(whole))
    path.write_bytes(whole[:at])
    damage: list[Damage] = []
    found = [d.html for d in read_documents(path, damage=damage)]
    # The two line ends behind a plain record are no part of it.
    expected = [page(i) for i, end in enumerate(ends) if at >= (end if compress else end - 4)]
    assert found == expected
    assert damage or at in ends or not compress


@pytest.mark.parametrize("compress", [True, False])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 0.999), junk=st.binary(min_size=1, max_size=40))
def test_a_bent_record_costs_only_itself(tmp_path: Path, compress: bool, share: float, junk: bytes) -> None:
    path = tmp_path / "bent.warc"
    ends = write_warc(path, 6, compress)
    whole = bytearray(path.read_bytes())
    at = int(share * len(whole))
    whole[at : at + len(junk)] = junk
    path.write_bytes(whole)
    hit = {sum(e <= place for e in ends) for place in (at, at + len(junk) - 1)}
    found = [d.html for d in read_documents(path, damage=[])]
    untouched = [page(i) for i in range(6) if not any(h - 1 <= i <= h + 1 for h in hit)]
    assert [p for p in untouched if p not in found] == []


def test_a_gzip_file_of_one_member_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one.warc.gz"
    write_warc(path, 3, compress=False)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert [d.html for d in read_documents(path)] == [page(i) for i in range(3)]


def test_records_with_impossible_lengths(tmp_path: Path) -> None:
    path = tmp_path / "lies.warc"
    write_warc(path, 3, compress=False)
    whole = path.read_bytes()
    first = whole.index(b"Content-Length: ")
    for lie in (b"99999999999999", b"-5", b"many"):
        path.write_bytes(whole[: first + 16] + lie + whole[whole.index(b"\r", first) :])
        damage: list[Damage] = []
        assert [d.html for d in read_documents(path, damage=damage)] == [page(1), page(2)]
        assert damage


def test_a_gzip_bomb_in_a_response_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmctl.formats.warc.MAX_PAYLOAD", 100_000)
    path = tmp_path / "bomb.warc.gz"
    body = gzip.compress(b"<html>" + b"a" * 50_000_000)
    with open(path, "wb") as f:
        writer = WARCWriter(f, gzip=True)
        head = StatusAndHeaders(
            "200 OK", [("Content-Type", "text/html"), ("Content-Encoding", "gzip")], protocol="HTTP/1.1"
        )
        record = writer.create_warc_record(
            "http://e.com/", "response", payload=io.BytesIO(body), length=len(body), http_headers=head
        )
        writer.write_record(record)
    (document,) = read_documents(path)
    assert len(document.html or b"") == 100_000


def test_content_type() -> None:
    assert content_type('Text/HTML; Charset="ISO-8859-1"; x=y') == ("text/html", "ISO-8859-1")
    assert content_type("text/html") == ("text/html", None)
    assert content_type("") == ("", None)
