"""Crawling again: what has not changed is not sent again, and the new pages are whole without the old ones."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from llmctl.crawl.archive import Archive
from llmctl.crawl.frontier import Frontier
from llmctl.crawl.recrawl import Earlier
from llmctl.formats.document import DamageList
from llmctl.formats.warc import records
from llmctl.formats.web import read_documents
from llmctl.workspace import Artifact

HTML = {"Content-Type": "text/html; charset=utf-8"}


class Page:
    """A page with validators: it answers 304 to a request whose conditions hold, as RFC 9110 says."""

    def __init__(self, site: Any, Reply: Any, path: str, text: str, etag: str = "", modified: str = "") -> None:
        self.text, self.etag, self.modified, self.sent = text, etag, modified, 0
        self._site, self._reply = site, Reply
        site.routes[path] = self

    def __call__(self) -> Any:
        asked = {k.lower(): v for k, v in self._site.heads[-1].items()}
        given = {k: v for k, v in (("ETag", self.etag), ("Last-Modified", self.modified)) if v}
        if "if-none-match" in asked:
            fresh = self.etag == asked["if-none-match"]
        else:
            fresh = bool(self.modified) and asked.get("if-modified-since") == self.modified
        if fresh:
            return self._reply(status=304, headers=given, length=0)
        self.sent += 1
        return self._reply(self.text.encode(), headers={**HTML, **given})


@pytest.fixture
def pages(site: Any, Reply: Any, links: Any) -> dict[str, Page]:
    """Five pages: with an ETag, with a date, with nothing, one that changes, one that goes."""
    paths = ("/tag", "/date", "/bare", "/news", "/going", "/unlinked")
    made = {"/": Page(site, Reply, "/", links(*paths), etag='"home-1"')}
    made["/tag"] = Page(
        site, Reply, "/tag", "<p>tag" + links("/below"), etag='W/"1"', modified="Mon, 01 Jan 2024 00:00:00 GMT"
    )
    made["/below"] = Page(site, Reply, "/below", "<p>only linked from a page that does not change", etag='"b"')
    made["/date"] = Page(site, Reply, "/date", "<p>date", modified="Tue, 02 Jan 2024 00:00:00 GMT")
    made["/bare"] = Page(site, Reply, "/bare", "<p>no validators")
    made["/news"] = Page(site, Reply, "/news", "<p>old news", etag='"n1"')
    made["/going"] = Page(site, Reply, "/going", "<p>soon gone", etag='"g"')
    made["/unlinked"] = Page(site, Reply, "/unlinked", "<p>no link to it later", etag='"u"')
    return made


def change(site: Any, pages: dict[str, Page], links: Any) -> None:
    """A day later."""
    pages["/"].text, pages["/"].etag = links("/tag", "/date", "/bare", "/news", "/going", "/fresh"), '"home-2"'
    pages["/news"].text, pages["/news"].etag = "<p>new news", '"n2"'
    del site.routes["/going"]
    site.routes["/fresh"] = "<p>a new page"


def documents(crawl: Any) -> dict[str, tuple[str, str]]:
    """(id, HTML) of what `llmctl filter` would read, by path."""
    return {d.url.partition("/")[2].partition("/")[2]: (d.id, d.markup()) for d in read_documents(crawl.artifact.path)}


def test_only_what_has_changed_is_sent(site: Any, pages: dict[str, Page], crawl: Any, links: Any) -> None:
    crawl(site.url, out="old")
    before, old = documents(crawl), crawl.artifact
    change(site, pages, links)
    for page in pages.values():
        page.sent = 0
    crawl(site.url, out="new", since="old")
    assert {path: p.sent for path, p in pages.items()} == {
        "/": 1, "/tag": 0, "/below": 0, "/date": 0, "/bare": 1, "/news": 1, "/going": 0, "/unlinked": 0,
    }  # fmt: skip
    assert crawl.artifact.figures["recrawl"] == {"new": 1, "changed": 2, "unchanged": 4, "gone": 2}
    shutil.rmtree(old.path)  # the new pages do not lean on the old
    after = documents(crawl)
    assert {path.partition("/")[2]: html for path, (_, html) in after.items()} == {
        "": pages["/"].text, "tag": pages["/tag"].text, "below": pages["/below"].text, "date": pages["/date"].text,
        "bare": pages["/bare"].text, "news": "<p>new news", "fresh": "<p>a new page",
    }  # fmt: skip
    same = {path for path in after if before.get(path) == after[path]}  # record ids too: rows keep their names
    assert {p.partition("/")[2] for p in same} == {"tag", "below", "date", "bare"}
    assert crawl.outcome(f"{site.url}/tag")["why"] == "unchanged"
    assert crawl.outcome(f"{site.url}/going")["why"] == "status 404"
    assert crawl.outcome(f"{site.url}/unlinked")["state"] == "gone"


def test_the_records_are_what_the_standard_asks(site: Any, pages: dict[str, Page], crawl: Any) -> None:
    crawl(site.url, out="old")
    old = {r.rec_headers.get_header("WARC-Target-URI"): r for r in crawl.records() if r.rec_type == "response"}
    crawl(site.url, out="new", since="old")
    written = crawl.records()
    for path, profile in (("/tag", "server-not-modified"), ("/bare", "identical-payload-digest")):
        url = site.url + path
        mine = [r for r in written if r.rec_headers.get_header("WARC-Target-URI") == url]
        assert [r.rec_type for r in mine] == ["response", "revisit", "request"]
        response, revisit, request = mine
        assert response.body == old[url].body and response.rec_headers.headers == old[url].rec_headers.headers
        assert response.http_headers.headers == old[url].http_headers.headers
        head = revisit.rec_headers
        assert head.get_header("WARC-Profile") == f"http://netpreserve.org/warc/1.1/revisit/{profile}"
        assert head.get_header("WARC-Refers-To") == response.rec_headers.get_header("WARC-Record-ID")
        assert head.get_header("WARC-Refers-To-Date") == response.rec_headers.get_header("WARC-Date")
        assert head.get_header("WARC-Refers-To-Target-URI") == url
        assert request.rec_headers.get_header("WARC-Concurrent-To") == head.get_header("WARC-Record-ID")
        assert revisit.body == b""
    tag = next(r for r in written if r.rec_type == "revisit" and "/tag" in r.rec_headers.get_header("WARC-Target-URI"))
    assert tag.http_headers.get_statuscode() == "304" and tag.http_headers.get_header("ETag") == 'W/"1"'
    asked = next(
        r for r in written if r.rec_type == "request" and "/tag" in r.rec_headers.get_header("WARC-Target-URI")
    )
    assert asked.http_headers.get_header("If-None-Match") == 'W/"1"'
    assert asked.http_headers.get_header("If-Modified-Since") == "Mon, 01 Jan 2024 00:00:00 GMT"
    bare = next(
        r for r in written if r.rec_type == "revisit" and "/bare" in r.rec_headers.get_header("WARC-Target-URI")
    )
    first = old[f"{site.url}/bare"].rec_headers.get_header("WARC-Payload-Digest")
    assert bare.rec_headers.get_header("WARC-Payload-Digest") == first


def test_again_and_again_under_one_name(site: Any, pages: dict[str, Page], crawl: Any, links: Any) -> None:
    crawl(site.url)
    for page in pages.values():
        page.sent = 0
    for _ in range(2):
        crawl(site.url, since="pages")
        assert crawl.artifact.figures["recrawl"] == {"new": 0, "changed": 0, "unchanged": 8, "gone": 0}
    assert sum(p.sent for p in pages.values()) == 2  # the page without validators, twice
    change(site, pages, links)
    assert len(crawl(site.url, since="pages")) == 7
    assert crawl.artifact.damage(deep=True) == []
    from llmctl.pipeline.look import lineage

    assert lineage(crawl.artifact, crawl.workspace)[0]["state"] == "made again since"


def test_newer_validators_of_a_304_are_used_next_time(site: Any, Reply: Any, crawl: Any) -> None:
    page = Page(site, Reply, "/", "<p>the same", modified="Mon, 01 Jan 2024 00:00:00 GMT")
    crawl(site.url, out="one")
    page.etag = '"since then"'
    crawl(site.url, out="two", since="one")
    crawl(site.url, out="three", since="two")
    assert site.heads[-1]["If-None-Match"] == '"since then"' and page.sent == 1


def test_a_304_that_was_not_asked_for_is_a_failure(site: Any, Reply: Any, crawl: Any, links: Any) -> None:
    site.routes |= {"/": links("/x"), "/x": Reply(status=304, length=0)}
    assert crawl(site.url) == [f"{site.url}/"]
    assert crawl.outcome(f"{site.url}/x")["why"] == "status 304"


def test_damaged_earlier_pages_are_fetched_anew(site: Any, pages: dict[str, Page], crawl: Any, capsys: Any) -> None:
    from llmctl.console import Console

    crawl(site.url, out="old")
    archive = next(crawl.artifact.path.glob("*.warc.gz"))
    record = next(r for r in records(archive, "", DamageList()) if r.type == "response" and r.url.endswith("/date"))
    with open(archive, "r+b") as f:
        f.seek(record.offset + 60)
        f.write(b"\0" * 40)
    crawl.console = Console()
    assert len(crawl(site.url, out="new", since="old")) == 8
    assert crawl.artifact.figures["recrawl"] == {"new": 1, "changed": 0, "unchanged": 7, "gone": 0}
    assert "old: 1 damaged places" in capsys.readouterr().err


@pytest.mark.parametrize("after", [2, 5])
def test_a_killed_recrawl_goes_on(site: Any, pages: dict[str, Page], crawl: Any, monkeypatch: Any, after: int) -> None:
    crawl(site.url, out="old")
    flush, commit, written = Archive.flush, Frontier.commit, 0

    def counting(self: Archive) -> tuple[int, int]:
        nonlocal written
        before = self.position
        written += flush(self) != before
        return self.position

    def dying(self: Frontier) -> None:
        if written > after:
            raise MemoryError("killed here")
        commit(self)

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "flush", counting)
        patched.setattr(Frontier, "commit", dying)
        with pytest.raises(MemoryError):
            crawl(site.url, out="new", since="old")
    site.asked.clear()
    found = crawl(site.url, out="new", since="old")
    assert len(found) == len(set(found)) == 8
    assert sum(site.asked.values()) == 8 - (after + 1)
    assert crawl.artifact.figures["recrawl"] == {"new": 0, "changed": 0, "unchanged": 8, "gone": 0}


def test_the_index_is_made_once(site: Any, pages: dict[str, Page], crawl: Any, tmp_path: Any, monkeypatch: Any) -> None:
    crawl(site.url, out="old")
    made = Earlier(crawl.artifact.path, tmp_path / "index.sqlite", ())
    known = made.find(f"{site.url}/tag")
    assert known is not None and known.conditions[0] == ("If-None-Match", 'W/"1"')
    assert made.record(known).url == f"{site.url}/tag"
    made.close()
    monkeypatch.setattr("llmctl.crawl.recrawl.records", None)
    again = Earlier(crawl.artifact.path, tmp_path / "index.sqlite", ())
    assert len(list(again.urls())) == 8
    again.close()


def test_since_is_an_input(site: Any, crawl: Any) -> None:
    from llmctl.errors import UserError

    site.routes["/"] = "<p>x"
    with pytest.raises(UserError, match="no pages named 'absent'"):
        crawl(site.url, since="absent")
    crawl(site.url, out="old")
    digest = crawl.artifact.digest
    crawl(site.url, out="new", since="old")
    assert isinstance(crawl.artifact, Artifact)
    assert crawl.artifact.manifest["inputs"] == [{"kind": "pages", "name": "old", "digest": digest}]
