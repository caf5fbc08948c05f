"""Common Crawl against a server that speaks its protocol and misbehaves as it does."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crawl_cc_server import CRAWLS, WARCS, CommonCrawl, place
from warcio.archiveiterator import ArchiveIterator

from llmctl.crawl.cc_source import Files, Query, parse
from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.stage import plan
from llmctl.errors import Interrupted, UserError
from llmctl.formats.web import read_documents

IANA = "cc:CC-MAIN-2024-22?url=*.iana.org"


@pytest.fixture
def cc(data: Path) -> Iterator[CommonCrawl]:
    """The service."""
    service = CommonCrawl(data / "web" / "warc")
    yield service
    service.close()


@pytest.fixture
def take(crawl: Any, cc: CommonCrawl) -> Callable[..., list[str]]:
    """Runs the stage against the service; the addresses of the pages."""

    def run(*source: str, **settings: Any) -> list[str]:
        crawl.check_digests = False
        found: list[str] = crawl(*source, **{**services(cc), **settings})
        return found

    return run


def services(cc: CommonCrawl) -> dict[str, Any]:
    return {"common_crawl": {"index": cc.url, "data": cc.url, "retries": 4}}


def rows(cc: CommonCrawl, host: str, **wanted: str) -> list[dict[str, str]]:
    kinds = ("text/html", "application/xhtml+xml", "text/plain")
    found = [
        r for r in cc.rows if r["urlkey"].startswith(host) and r["status"] == "200" and r["mime-detected"] in kinds
    ]
    return [r for r in found if all(r[k.replace("_", "-")] == v for k, v in wanted.items())]


def data_requests(cc: CommonCrawl) -> dict[str, int]:
    return {k: n for k, n in cc.asked.items() if " bytes=" in k}


def test_captures_are_written_as_they_are(cc: CommonCrawl, crawl: Any, take: Any) -> None:
    found = take(IANA, common_crawl={"index": cc.url, "data": cc.url, "connections": 1})
    expected = rows(cc, "org,iana)") + rows(cc, "org,iana,")
    assert found == [r["url"] for r in expected] and len(found) > 10
    (path,) = crawl.artifact.path.glob("*.warc.gz")
    assert path.name == "CC-MAIN-2024-22-00000.warc.gz"
    raw = path.read_bytes()
    members = [cc.files[r["filename"]][int(r["offset"]) : int(r["offset"]) + int(r["length"])] for r in expected]
    assert raw.endswith(b"".join(members))  # behind the warcinfo
    assert {d.dump for d in read_documents(crawl.artifact.path)} == {"CC-MAIN-2024-22"}
    assert cc.most_at_once == 1
    assert all(h["User-Agent"].startswith("llmctl/") for h in cc.heads)
    assert max(cc.asked.values()) == 1
    assert crawl.artifact.figures["fetched"] == len(found)


@pytest.mark.slow
def test_filters(cc: CommonCrawl, take: Any) -> None:
    assert take(f"{IANA}&lang=fra", out="a") and set(take(f"{IANA}&lang=fra", out="b")) == {
        r["url"] for r in rows(cc, "org,iana", languages="fra,eng")
    }
    everything = take(f"{IANA}&mime=*&status=*", out="c")
    assert len(everything) == sum(r["urlkey"].startswith("org,iana") for r in cc.rows) > len(take(IANA, out="d"))
    assert (
        take(f"{IANA}&mime=image/png&limit=2", out="e")
        == [r["url"] for r in cc.rows if r["urlkey"].startswith("org,iana") and r["mime-detected"] == "image/png"][:2]
    )
    (one,) = take("cc:latest?url=an.wikipedia.org/wiki/Escopete", out="f")
    assert one == "https://an.wikipedia.org/wiki/Escopete"
    prefix = take("cc:CC-MAIN-2024-22?url=iana.org/domains/*", out="g")
    assert prefix and all("iana.org/domains/" in url for url in prefix)


def test_whole_files(cc: CommonCrawl, crawl: Any, take: Any, data: Path) -> None:
    take("cc:CC-MAIN-2024-22/warc?files=1-2", "cc:latest/wet?files=0")
    expected = [str(data / "web" / "warc" / n) for n in (WARCS[1], WARCS[2])]
    copied = (crawl.artifact.path / "CC-MAIN-2024-22-warc-00000.warc.gz").read_bytes()
    assert copied.endswith(b"".join(Path(n).read_bytes() for n in expected))
    wet = [d for d in read_documents(crawl.artifact.path) if d.html is None and "Escopete" in d.url]
    assert len(wet) == 1 and wet[0].dump == "CC-MAIN-2024-22"
    assert not list(crawl.artifact.path.rglob("*.part"))
    pages = sum(len(list(read_documents(Path(n)))) for n in expected) + 1
    assert crawl.artifact.figures["pages"] == pages


def test_a_busy_service_is_given_time(cc: CommonCrawl, take: Any) -> None:
    answers = iter([("status", 503, {"Retry-After": "1"}), ("status", 429), ("status", 500), None, ("status", 503)])
    cc.fault = lambda path, range: next(answers, None)
    before = time.monotonic()
    assert len(take(f"{IANA}&limit=3")) == 3
    assert cc.times[1][1] - cc.times[0][1] >= 1.0
    assert time.monotonic() - before < 20


def test_a_service_that_stays_busy_ends_the_stage_and_keeps_what_there_is(cc: CommonCrawl, take: Any) -> None:
    got = 0

    def fault(path: str, range: str) -> Any:
        nonlocal got
        got += bool(range)
        return ("status", 503) if got > 5 else None

    cc.fault = fault
    with pytest.raises(UserError, match=r"status 503, 5 times in a row[\s\S]*run the same command again"):
        take(f"{IANA}&limit=9")
    cc.fault = lambda path, range: None
    first = data_requests(cc)
    cc.asked.clear()
    assert len(take(f"{IANA}&limit=9")) == 9
    again = data_requests(cc)
    assert len(again) == 4 and sum(n for k, n in first.items() if k not in again) == 5
    assert not any("-index" in k for k in cc.asked)


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (("damage",), "corrupt|not end where|no record|digest"),
        (("shift",), "asked for bytes"),
        (("short",), "bytes came of"),
        (("whole",), "no range"),
        (("status", 404), "status 404"),
    ],
)
def test_a_capture_that_is_not_what_the_index_says(
    cc: CommonCrawl, crawl: Any, take: Any, fault: tuple[Any, ...], what: str
) -> None:
    bad = rows(cc, "org,iana")[1]
    cc.fault = lambda path, range: fault if range.startswith(f"bytes={bad['offset']}-") else None
    found = take(f"{IANA}&limit=4")
    assert len(found) == 3 and bad["url"] not in found
    assert crawl.artifact.figures["damaged"] == 1
    (line,) = crawl.artifact.figures["damage"]
    assert bad["url"] in line
    assert re.search(what, line)
    with pytest.raises(UserError, match="damaged"):
        take(f"{IANA}&limit=4", out="strict", strict=True)


def test_a_record_of_another_address_is_refused(cc: CommonCrawl, crawl: Any, take: Any) -> None:
    one, two, three = rows(cc, "org,iana")[:3]
    one |= {k: two[k] for k in ("offset", "length", "filename", "digest")}
    three["digest"] = "A" * 32
    assert two["url"] not in take(f"{IANA}&limit=3")  # its place is known to be that of the first
    address, digest = sorted(crawl.artifact.figures["damage"], key=lambda line: "digest" in line)
    assert f"{one['url']}: another record is there: {two['url']}" in address
    assert f"{three['url']}: its digest is" in digest


def test_a_cut_connection_goes_on_where_it_was(cc: CommonCrawl, crawl: Any, take: Any) -> None:
    path = place(CRAWLS[0], "warc", WARCS[2])
    cuts = iter([100_000, 200_000, 1, 50_000, 300])
    cc.fault = lambda p, range: ("cut", n) if p == path and (n := next(cuts, None)) else None
    take("cc:CC-MAIN-2024-22/warc?files=2")
    copied = next(crawl.artifact.path.glob("*.warc.gz")).read_bytes()
    assert copied.endswith(cc.files[path])
    starts = [int(k.partition(" bytes=")[2].rstrip("-")) for k in data_requests(cc)]
    assert starts == [0, 100_000, 300_000, 300_001, 350_001, 350_301]


def test_damage_in_a_whole_file(cc: CommonCrawl, crawl: Any, take: Any) -> None:
    path = place(CRAWLS[0], "warc", WARCS[0])
    row = [r for r in cc.rows if r["filename"] == path][40]
    bent = bytearray(cc.files[path])
    bent[int(row["offset"]) + 200] ^= 0xFF
    cc.files[path] = bytes(bent)
    take("cc:CC-MAIN-2024-22/warc?files=0")
    (line,) = crawl.artifact.figures["damage"]
    assert WARCS[0] in line and f"byte {int(row['offset']):,}" in line


def test_mistakes(cc: CommonCrawl, take: Any) -> None:
    for source, what in (
        ("cc:CC-MAIN-2024-21?url=iana.org", r"no crawl 'CC-MAIN-2024-21' \(did you mean 'CC-MAIN-2024-22'"),
        ("cc:CC-MAIN-2024-21/wet?files=0", r"did you mean 'CC-MAIN-2024-22'"),
        ("cc:CC-MAIN-2024-22/warc?files=3-5", r"has 4 warc files, 0 to 3; there is no 4"),
        ("cc:CC-MAIN-2024-22?url=*.example.museum", r"no captures in CC-MAIN-2024-22"),
    ):
        with pytest.raises(UserError, match=what):
            take(source)
    cc.fault = lambda path, range: ("status", 403)
    with pytest.raises(UserError, match="refuses"):
        take(IANA)


def test_only_an_address_that_the_setting_names_may_be_private(
    cc: CommonCrawl, take: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(cc.url.rpartition(":")[2])))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: inside)
    with pytest.raises(UserError, match=r"a private address \(127.0.0.1\)"):
        take(IANA, common_crawl={"index": "http://index.example.org", "data": cc.url})
    cc.fault = lambda path, range: ("status", 302, {"Location": f"{cc.url}/elsewhere"}) if range else None
    with pytest.raises(UserError, match="it has moved to"):
        take(IANA)
    assert not any("elsewhere" in k for k in cc.asked)


@pytest.mark.parametrize(
    ("source", "meaning"),
    [
        ("cc:latest?url=*.a.org/*", Query("latest", "a.org", "domain")),
        ("cc:latest?url=a.org/b/*&limit=5", Query("latest", "a.org/b/", "prefix", limit=5)),
        ("cc:latest?url=http://a.org/?x=1%26y=2", Query("latest", "http://a.org/?x=1&y=2", "exact")),
        ("cc:CC-MAIN-2012?url=a.org&lang=eng,deu", Query("CC-MAIN-2012", "a.org", "exact", ("eng", "deu"))),
        (
            "cc:latest?url=a.org&mime=text/html,application/xhtml+xml&status=*",
            Query("latest", "a.org", "exact", mime=("text/html", "application/xhtml+xml"), status=("*",)),
        ),
        ("cc:CC-NEWS-2024/warc?files=7,0-2", Files("CC-NEWS-2024", "warc", (0, 1, 2, 7))),
    ],
)
def test_grammar(source: str, meaning: Query | Files) -> None:
    assert parse(source) == meaning


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("cc:CC-MAIN-2024-22", "which pages"),
        ("cc:main?url=a.org", "no crawl"),
        ("cc:latest?ulr=a.org", "did you mean 'url'"),
        ("cc:latest?url=", "no URL pattern"),
        ("cc:latest?url=a.*/b", "no URL pattern"),
        ("cc:latest?url=*.a.org/b/*", "no URL pattern"),
        ("cc:latest?url=a.org&lang=en", "ISO 639-3"),
        ("cc:latest?url=a.org&limit=many", "no number"),
        ("cc:latest/wat?files=0", "no kind"),
        ("cc:latest/wet?files=5-3", "names no files"),
        ("cc:latest/wet?files=", "names no files"),
        ("cc:latest/wet?url=a.org", "there are files"),
    ],
)
def test_bad_grammar(source: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        CrawlConfig(source=source)


def test_plan(cc: CommonCrawl, crawl: Any) -> None:
    config = CrawlConfig.model_validate({"source": [IANA, "cc:latest/wet?files=0-9"], **services(cc)})
    found = dict(plan(config, crawl.workspace))
    assert found[IANA].startswith("3 pages of the index of CC-MAIN-2024-22, at most")
    assert found["cc:latest/wet?files=0-9"] == "10 files of latest, about 1.0 GB"
    assert len(cc.asked) == 1
    cc.fault = lambda path, range: ("status", 503)
    assert "cannot be asked now" in dict(plan(config, crawl.workspace))[IANA]


CHILD = """
import json, sys
from llmctl.console import Console
from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.stage import run
from llmctl.workspace import Workspace
run(CrawlConfig.model_validate(json.loads(sys.argv[2])), Workspace(sys.argv[1]), Console(quiet=True))
"""


@pytest.mark.slow
def test_killed_again_and_again(cc: CommonCrawl, crawl: Any) -> None:
    settings = {
        "source": [IANA, "cc:CC-MAIN-2024-22/warc?files=2"],
        "segment_bytes": 100_000,
        "politeness": {"delay": 0.0},
        "fetch": {"backoff": 0.01},
        **services(cc),
    }

    def slow(path: str, range: str) -> None:
        time.sleep(0.03 if range else 0.0)

    cc.fault = slow
    rng, kills = random.Random(5), 0
    command = [sys.executable, "-c", CHILD, str(crawl.workspace.root), json.dumps(settings)]
    while not (crawl.workspace.root / "pages" / "pages" / "manifest.json").exists():
        child, before = subprocess.Popen(command), sum(cc.asked.values())
        while sum(cc.asked.values()) == before and child.poll() is None:
            time.sleep(0.005)
        try:
            child.wait(rng.uniform(0.02, 0.4))
            assert child.returncode == 0
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            kills += 1
        assert kills < 60
    assert kills >= 2
    crawl.artifact, crawl.check_digests = crawl.workspace.find("pages", ["pages"]), False
    stored = [r.rec_headers.get_header("WARC-Record-ID") for r in crawl.records() if r.rec_type == "response"]
    file = place(CRAWLS[0], "warc", WARCS[2])
    assert len(stored) == len(rows(cc, "org,iana")) + sum(r["filename"] == file for r in cc.rows)
    again = sum(n - 1 for k, n in data_requests(cc).items() if not k.endswith("-"))
    assert again <= kills * 2  # what was in the air on two connections


def test_ctrl_c_says_how_to_go_on(cc: CommonCrawl, take: Any) -> None:
    cc.fault = lambda path, range: (
        os.kill(os.getpid(), signal.SIGINT) if range and len(data_requests(cc)) == 4 else None
    )
    with pytest.raises(Interrupted, match=r"pages are stored; run the same command again"):
        take(f"{IANA}&limit=8")
    cc.fault = lambda path, range: None
    assert len(take(f"{IANA}&limit=8")) == 8


def test_both_readers_read_it_back(cc: CommonCrawl, crawl: Any, take: Any) -> None:
    from fastwarc.warc import ArchiveIterator as FastWarc

    found = take(IANA, "cc:CC-MAIN-2024-22/warc?files=0")
    fast, slow = [], []
    for path in sorted(crawl.artifact.path.glob("*.warc.gz")):
        with open(path, "rb") as f:
            fast += [r.headers["WARC-Target-URI"] for r in FastWarc(f) if r.headers["WARC-Type"] == "response"]
        with open(path, "rb") as f:
            archive = ArchiveIterator(f)
            slow += [r.rec_headers.get_header("WARC-Target-URI") for r in archive if r.rec_type == "response"]
    assert found == fast == slow
