"""HTML folders, plain text, JSON Lines, Parquet, and charsets."""

from __future__ import annotations

import base64
import gzip
import html
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.formats.charset import decode, known
from llmctl.formats.web import Damage, cut_text, read_documents


def test_an_html_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.html").write_text("<p>one")
    (tmp_path / "b" / "c.htm").write_text('<head><link rel="canonical" href="https://example.org/c"></head><p>two')
    (tmp_path / "b" / "note.txt").write_text("three")
    (tmp_path / "b" / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / ".hidden.html").write_text("<p>no")
    (tmp_path / "empty.html").write_text(" ")
    damage: list[Damage] = []
    found = {d.file_path: d for d in read_documents(tmp_path, damage=damage)}
    assert list(found) == ["a.html", "b/c.htm", "b/note.txt"]
    assert found["a.html"].url == "file:///a.html"
    assert found["b/c.htm"].url == "https://example.org/c"
    assert found["b/note.txt"].text == "three"
    assert [d.file for d in damage] == ["empty.html"]


def test_a_folder_without_documents_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match="nothing to read"):
        list(read_documents(tmp_path))
    with pytest.raises(UserError, match="no such file"):
        list(read_documents(tmp_path / "absent"))


def test_jsonl_names_its_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        json.dumps(
            {"text": "one\u2028still one", "id": 7, "meta": {"url": "http://e.com", "language": "en"}},
            ensure_ascii=False,
        ),
        "{broken",
        json.dumps({"title": "no text"}),
        "[]",
        "",
        json.dumps({"content": "two", "url": "http://e.com/2", "timestamp": "2024-01-01"}),
    ]
    path.write_text("\n".join(rows), encoding="utf-8")
    damage: list[Damage] = []
    one, two = read_documents(path, damage=damage)
    assert (one.text, one.id, one.url, one.language) == ("one\u2028still one", "7", "http://e.com", "en")
    assert (two.text, two.id, two.date) == ("two", "rows.jsonl#6", "2024-01-01")
    assert [d.where for d in damage] == ["line 2", "line 3", "line 4"]


def test_a_cut_jsonl_gz_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress("".join(json.dumps({"text": f"row {i} {i**9}"}) + "\n" for i in range(5000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    damage: list[Damage] = []
    found = list(read_documents(path, damage=damage))
    assert 100 < len(found) < 5000
    assert found[-1].text == f"row {len(found) - 1} {(len(found) - 1) ** 9}"
    assert "cut or corrupt" in damage[-1].what


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": ["a", None, "c"], "id": ["x", "y", "z"]}), path)
    assert [(d.id, d.text) for d in read_documents(path)] == [("x", "a"), ("z", "c")]
    pq.write_table(pa.table({"words": ["a"]}), path)
    with pytest.raises(UserError, match=r"no `text` column[\s\S]*words"):
        list(read_documents(path))
    damage: list[Damage] = []
    path.write_bytes(b"PAR1 nothing PAR1")
    assert not list(read_documents(path, damage=damage)) and len(damage) == 1


def test_the_hub_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, **options: object) -> list[dict[str, object]]:
        asked.append((name, config, options))
        if name == "org/absent":
            raise FileNotFoundError("no such data set")
        return [{"title": "x"}] if name == "org/other" else [{"text": "a"}, {"text": "b", "url": "http://e.com"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert [(d.id, d.text) for d in read_documents(Path("hf:org/name:small@test"))] == [
        ("hf:org/name#1", "a"),
        ("hf:org/name#2", "b"),
    ]
    assert asked == [("org/name", "small", {"split": "test", "streaming": True})]
    with pytest.raises(UserError, match=r"hf:org/absent.*no such data set"):
        list(read_documents(Path("hf:org/absent")))
    with pytest.raises(UserError, match=r"no text[\s\S]*title"):
        list(read_documents(Path("hf:org/other")))


@given(st.text(alphabet="ab \n", max_size=400), st.integers(20, 60))
def test_cut_text_loses_nothing(text: str, size: int) -> None:
    pieces = list(cut_text(text, size))
    assert "".join(pieces).strip() == text.strip()
    assert all(0 < len(p) <= size for p in pieces)


def test_a_novel_is_cut_at_blank_lines(tmp_path: Path, data: Path) -> None:
    found = list(read_documents(data / "text" / "tinyshakespeare.txt"))
    assert 20 < len(found) < 50
    assert all((d.text or "").endswith("\n\n") for d in found[:-1])
    assert "".join(d.text or "" for d in found) == (data / "text" / "tinyshakespeare.txt").read_text()
    assert len({d.id for d in found}) == len(found)


@pytest.mark.parametrize(
    ("raw", "header", "text"),
    [
        ("Grüße".encode(), None, "Grüße"),
        ("Grüße".encode(), "iso-8859-1", "Grüße"),  # the header lies
        ("Grüße".encode("latin-1"), "iso-8859-1", "Grüße"),
        ("„Grüße“".encode("cp1252"), "latin1", "„Grüße“"),  # what browsers take latin-1 for
        (b'<meta charset="windows-1251">' + "Привет".encode("cp1251"), None, '<meta charset="windows-1251">Привет'),
        ("﻿Grüße".encode("utf-16-le"), None, "Grüße"),
        ("日本語".encode("iso2022_jp"), "iso-2022-jp", "日本語"),
        ("日本語のページです。".encode("euc_jp"), "no-such-charset", "日本語のページです。"),
        (b"plain", "hex", "plain"),
        (b"", None, ""),
    ],
)
def test_decode(raw: bytes, header: str | None, text: str) -> None:
    assert decode(raw, header) == text


GUESSED = {
    "cp1252": (
        "Le garçon a mangé une crème brûlée à l'hôtel, où la fenêtre était fermée jusqu'à Noël.",
        "El niño comió en la montaña después del año nuevo; mañana será otro día más.",
        "Hän käveli äitinsä kanssa pitkän tien yli jäätyneen järven eikä löytänyt mitään.",
    ),
    "cp1250": ("Zażółć gęślą jaźń; później poszliśmy do sklepu, gdzie kupiliśmy świeże bułki i mąkę.",),
    "cp1253": ("Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια.",),
    "cp1254": ("Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar, kardeşlik.",),
    "euc_jp": ("すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",),
    "gb18030": ("人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。",),
}


@pytest.mark.parametrize(("charset", "text"), [(c, t) for c, texts in GUESSED.items() for t in texts])
def test_decode_guesses_legacy_charsets(charset: str, text: str) -> None:
    assert decode(text.encode(charset)) == text


def test_decode_guesses_from_the_bytes() -> None:
    russian = "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью."
    assert decode((russian * 5).encode("cp1251")) == russian * 5


@given(st.binary(max_size=200), st.text(max_size=12))
def test_decode_never_fails(raw: bytes, header: str) -> None:
    assert isinstance(decode(raw, header), str)


def test_known_charsets() -> None:
    assert known("UTF8") == "utf-8"
    assert known("gb2312") == "gb18030"
    assert known("zip") is None and known(None) is None and known("") is None


def test_real_pages_decode_to_their_texts(data: Path) -> None:
    """Pages that are not UTF-8: the segments that humans marked as content must be in what is decoded."""
    seen = missing = 0
    with gzip.open(data / "web" / "trafilatura_eval_pages.jsonl.gz", "rt", encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            if "html_b64" in row:
                markup = html.unescape(decode(base64.b64decode(row["html_b64"])))
                words = {w for segment in row["with"] for w in segment.split() if not w.isascii() and w.isalpha()}
                seen += len(words)
                missing += sum(w not in markup for w in words)
    assert seen >= 8
    assert missing == 0
