"""robots.txt as RFC 9309 has it, over HTTP."""

from __future__ import annotations

import base64
import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmctl.crawl.robots import Robots
from llmctl.errors import UserError


@pytest.fixture
def home(site: Any, links: Any) -> Any:
    site.routes |= {
        "/": links("/open", "/shut/a", "/shut/open"),
        "/open": "<p>open",
        "/shut/a": "<p>shut",
        "/shut/open": "<p>ok",
    }
    return site


def robots(text: str, Reply: Any) -> Any:
    return Reply(text.encode(), headers={"Content-Type": "text/plain"})


def test_disallowed_pages_are_not_asked_for(home: Any, crawl: Any, Reply: Any) -> None:
    home.routes["/robots.txt"] = robots("User-agent: *\nDisallow: /shut/\nAllow: /shut/open\n", Reply)
    assert crawl(home.url) == [f"{home.url}/", f"{home.url}/open", f"{home.url}/shut/open"]
    assert home.asked["/robots.txt"] == 1 and home.asked["/shut/a"] == 0
    assert crawl.outcome(f"{home.url}/shut/a") == {
        "url": f"{home.url}/shut/a", "state": "excluded", "why": "robots.txt", "status": 0, "bytes": 0, "depth": 1,
    }  # fmt: skip


def test_rules_of_ones_own_name_win(home: Any, crawl: Any, Reply: Any) -> None:
    text = "User-agent: *\nDisallow: /\n\nUser-agent: llmctl\nDisallow: /open\n"
    home.routes["/robots.txt"] = robots(text, Reply)
    assert f"{home.url}/open" not in crawl(home.url)
    with pytest.raises(UserError, match=r"robots\.txt"):
        crawl(home.url, out="other", politeness={"user_agent": "somebody", "delay": 0.0})
    assert home.heads[-1]["User-Agent"].startswith("somebody/")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_unavailable_means_allowed(home: Any, crawl: Any, Reply: Any, status: int) -> None:
    home.routes["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /", status)
    assert len(crawl(home.url)) == 4


def test_unreachable_means_forbidden(home: Any, crawl: Any, Reply: Any) -> None:
    home.routes["/robots.txt"] = Reply(b"", 500)
    with pytest.raises(UserError, match=r"robots\.txt: status 500"):
        crawl(home.url, fetch={"retries": 2, "backoff": 0.01})
    assert home.asked == {"/robots.txt": 3}
    assert len(crawl(home.url, out="own", politeness={"robots": False, "delay": 0.0})) == 4


def test_redirects_are_followed_five_times(home: Any, crawl: Any, Reply: Any) -> None:
    for i in range(8):
        home.routes[f"/r{i}"] = Reply(status=302, headers={"Location": f"/r{i + 1}"})
    home.routes["/robots.txt"] = Reply(status=301, headers={"Location": "/r4"})
    home.routes["/r8"] = robots("User-agent: *\nDisallow: /open", Reply)
    assert f"{home.url}/open" not in crawl(home.url)
    home.routes["/robots.txt"] = Reply(status=301, headers={"Location": "/r2"})
    assert f"{home.url}/open" in crawl(home.url, out="too-many")  # unavailable, so everything is allowed


def test_crawl_delay_is_kept(home: Any, crawl: Any, Reply: Any, begun: list[float]) -> None:
    home.routes["/robots.txt"] = robots("User-agent: *\nCrawl-delay: 0.3\n", Reply)
    crawl(home.url, politeness={"per_host": 4, "delay": 0.0})
    assert len(begun) == 5 and home.asked["/robots.txt"] == 1
    assert all(b - a >= 0.3 for a, b in pairwise(begun[1:]))  # the first is robots.txt itself


def test_sitemaps_reach_pages_without_links(home: Any, crawl: Any, Reply: Any, links: Any) -> None:
    home.routes["/"] = links("/open")
    index = f"<sitemapindex><sitemap><loc>{home.url}/map1.xml.gz</loc></sitemap></sitemapindex>"
    one = f"<urlset><url><loc>{home.url}/shut/a?x=1&amp;y=2</loc></url><url><loc>http://elsewhere.org/</loc></url></urlset>"
    home.routes |= {
        "/robots.txt": robots(f"Sitemap: {home.url}/index.xml\n", Reply),
        "/index.xml": Reply(index.encode(), headers={"Content-Type": "application/xml"}),
        "/map1.xml.gz": Reply(gzip.compress(one.encode()), headers={"Content-Type": "application/gzip"}),
        "/shut/a?x=1&y=2": "<p>hidden",
    }
    assert set(crawl(home.url)) == {f"{home.url}{p}" for p in ("/", "/open", "/shut/a?x=1&y=2")}
    assert len(crawl(home.url, out="flat", scope={"depth": 0})) == 1
    assert home.asked["/index.xml"] == 1


def test_real_robots_files_parse(data: Path) -> None:
    with gzip.open(data / "robots" / "protego_real_robots.jsonl.gz", "rt", encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            text = row.get("robots_txt") or base64.b64decode(row.get("robots_b64", "")).decode("utf-8", "replace")
            rules = Robots(text)
            rules.refusal(f"https://{row['host']}/some/page.html?x=1", "llmctl")
            assert 0.0 <= rules.delay("llmctl") <= 300.0
            assert all(isinstance(s, str) for s in rules.sitemaps)


GROUPS = """
allow: /foo/bar/

user-agent: FooBot
disallow: /
allow: /x/
user-agent: BarBot
disallow: /
allow: /y/


allow: /w/
user-agent: BazBot

user-agent: FooBot
allow: /z/
disallow: /
"""
LONGEST = "user-agent: FooBot\ndisallow: /x/page.html\nallow: /x/\n"


@pytest.mark.parametrize(
    ("text", "agent", "path", "allowed"),
    [
        # The cases that Google publishes with its parser (google/robotstxt, robots_test.cc), which RFC 9309 describes.
        ("", "FooBot", "/", True),
        ("user-agent: FooBot\ndisallow: /\n", "FooBot", "/x/y", False),
        ("foo: FooBot\nbar: /\n", "FooBot", "/x/y", True),
        (GROUPS, "FooBot", "/x/b", True),
        (GROUPS, "FooBot", "/z/d", True),
        (GROUPS, "FooBot", "/y/c", False),
        (GROUPS, "BarBot", "/y/c", True),
        (GROUPS, "BarBot", "/w/a", True),
        (GROUPS, "BarBot", "/z/d", False),
        (GROUPS, "BazBot", "/z/d", True),
        ("User-agent: BarBot\nSitemap: https://foo.bar/s\nUser-agent: *\nDisallow: /\n", "BarBot", "/", False),
        ("USER-AGENT: FooBot\nALLOW: /x/\nDISALLOW: /\n", "FooBot", "/x/y", True),
        ("USER-AGENT: FOO BAR\nALLOW: /x/\nDISALLOW: /\n", "foo", "/a/b", False),
        ("User-agent: FooBot/1.2 (by Foo)\nDisallow: /\n", "FooBot", "/x", False),
        ("User-Agent: *\nDisallow: /x\nUser-Agent: FooBot\nAllow: /x/y\nDisallow: /\n", "FooBot", "/x/y", True),
        ("user-agent: *\nallow: /\nuser-agent: FooBot\ndisallow: /\n", "FooBot", "/x", False),
        ("user-agent: FooBot\ndisallow: /\nuser-agent: BarBot\nallow: /\n", "QuxBot", "/x", True),
        ("user-agent: FooBot\ndisallow: /X/\n", "FooBot", "/x/y", True),
        (LONGEST, "FooBot", "/x/page.html", False),
        ("user-agent: FooBot\nallow: /x/page.html\ndisallow: /x/\n", "FooBot", "/x/page.html", True),
        ("user-agent: FooBot\ndisallow: \nallow: \n", "FooBot", "/x/page.html", True),
        ("user-agent: FooBot\ndisallow: /\nallow: /\n", "FooBot", "/x/page.html", True),
        ("user-agent: FooBot\ndisallow: /x\nallow: /x/\n", "FooBot", "/x", False),
        ("user-agent: FooBot\ndisallow: /x\nallow: /x/\n", "FooBot", "/x/", True),
        ("user-agent: FooBot\nallow: /page\ndisallow: /*.html\n", "FooBot", "/page.html", False),
        ("user-agent: FooBot\nallow: /x/page.\ndisallow: /*.html\n", "FooBot", "/x/page.html", True),
        ("User-agent: FooBot\nDisallow: /\nAllow: /foo/bar?qux=taz&baz=http://foo.bar?tar&par\n", "FooBot",
         "/foo/bar?qux=taz&baz=http://foo.bar?tar&par", True),
        ("User-agent: FooBot\nDisallow: /\nAllow: /foo/bar/ツ\n", "FooBot", "/foo/bar/%E3%83%84", True),
        ("User-agent: FooBot\nDisallow: /\nAllow: /foo/bar/%E3%83%84\n", "FooBot", "/foo/bar/%E3%83%84", True),
        ("User-agent: FooBot\nDisallow: /\nAllow: /foo/bar/%62%61%7A\n", "FooBot", "/foo/bar/baz", True),
        ("User-agent: FooBot\nDisallow: /foo/bar/quz\nAllow: /foo/*/qux\n", "FooBot", "/foo/bar/quz", False),
        ("User-agent: FooBot\nDisallow: /foo/bar$\nAllow: /foo/bar/qux\n", "FooBot", "/foo/bar", False),
        ("User-agent: FooBot\nDisallow: /foo/bar$\nAllow: /foo/bar/qux\n", "FooBot", "/foo/bar/baz", True),
        ("User-agent: FooBot\n# Disallow: /\nDisallow: /foo/quz#qux\nAllow: /\n", "FooBot", "/foo/quz", False),
        ("\ufeffUser-Agent: foo\nAllow: /AnyValue\nDisallow: /", "foo", "/else", False),
        ("User-Agent: foo\rAllow: /AnyValue\rDisallow: /\r", "foo", "/else", False),
        ("User-Agent: foo\r\nDisallow: /some/path\r\nDisallow: /other\r\n", "foo", "/some/path", False),
    ],
)  # fmt: skip
def test_googles_cases(text: str, agent: str, path: str, allowed: bool) -> None:
    assert (Robots(text).refusal("http://foo.bar" + path, agent) == "") is allowed
