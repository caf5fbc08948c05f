"""Sources on the disk: copied whole, the same bytes every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.stage import plan
from llmctl.errors import UserError
from llmctl.formats.web import read_documents


def test_real_archives(data: Path, crawl: Any) -> None:
    source = data / "web" / "warc"
    crawl.check_digests = False  # some of these archives have wrong ones, and are copied as they are
    crawl(str(source))
    before = [(d.url, d.id, d.markup() if d.html else d.text) for d in read_documents(source)]
    after = [(d.url, d.id, d.markup() if d.html else d.text) for d in read_documents(crawl.artifact.path)]
    arc = [i for i, (url, id, _) in enumerate(before) if id not in {a[1] for a in after}]
    assert len(arc) == 1  # the one from an ARC file, which has no ids: they are made when it is read
    assert [b[::2] for b in before] == [a[::2] for a in after]
    assert len(after) == crawl.artifact.figures["pages"] > 100
    assert crawl.artifact.figures["damaged"] == 1
    assert any(d.dump == "CC-MAIN-2024-22" for d in read_documents(crawl.artifact.path))
    with pytest.raises(UserError, match="clipped"):
        crawl(str(source), out="strict", strict=True)


def test_folders_texts_and_tables(folder: Path, crawl: Any) -> None:
    (folder / "größe.html").write_bytes("<title>ü</title><p>ü".encode("latin-1"))
    (folder / "b.txt").write_text("a text")
    (folder / "c.jsonl").write_text(json.dumps({"text": "a row", "url": "http://e.com/r"}) + "\nbroken\n")
    crawl(str(folder))
    found = {d.url: d for d in read_documents(crawl.artifact.path)}
    assert set(found) == {"file:///gr%C3%B6%C3%9Fe.html", "file:///b.txt", "http://e.com/r"}
    assert found["file:///gr%C3%B6%C3%9Fe.html"].html == "<title>ü</title><p>ü".encode("latin-1")
    assert (found["file:///b.txt"].text, found["http://e.com/r"].text) == ("a text", "a row")
    assert crawl.artifact.figures["damage"] == ["c.jsonl (line 2): not JSON"]
    digest = crawl.artifact.digest
    crawl(str(folder), out="again")
    assert crawl.artifact.digest == digest


def test_a_change_in_the_folder_changes_the_fingerprint(folder: Path, crawl: Any) -> None:
    config = CrawlConfig(source=str(folder))
    (folder / "a.txt").write_text("one")
    first = crawl.workspace.fingerprint(config)
    (folder / "a.txt").write_text("two")
    assert crawl.workspace.fingerprint(config) != first


def test_both_kinds_together(folder: Path, crawl: Any, site: Any) -> None:
    (folder / "a.html").write_text("<p>on disk")
    site.routes["/"] = "<p>on the web"
    crawl(str(folder), site.url)
    assert {d.url for d in read_documents(crawl.artifact.path)} == {"file:///a.html", f"{site.url}/"}
    assert (crawl.artifact.figures["copied"], crawl.artifact.figures["fetched"]) == (1, 1)


def test_mistakes(folder: Path, crawl: Any) -> None:
    with pytest.raises(ValueError, match="nothing to crawl"):
        CrawlConfig(source=[])
    with pytest.raises(UserError, match="nothing to read"):
        crawl(str(folder))
    with pytest.raises(UserError, match="no such file"):
        crawl(str(folder / "absent"))
    (folder / "empty.html").write_text("")
    with pytest.raises(UserError, match="the file is empty"):
        crawl(str(folder))


def test_plan(folder: Path, crawl: Any) -> None:
    (folder / "a.html").write_text("<p>on disk")
    config = CrawlConfig(source=[str(folder), "https://example.org/"], max_pages=600)
    rows = dict(plan(config, crawl.workspace))
    assert rows[str(folder)] == "1 files, 10 bytes"
    assert rows["hosts"] == "example.org"
    assert rows["time"] == "at least 10 min for 600 pages"
