"""Addresses: one spelling, and which are followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.network import is_public, names_private
from llmctl.crawl.sources import Kind, classify
from llmctl.crawl.urls import Scope, canonical
from llmctl.errors import UserError

BASE = "http://example.com/a/b/c?x=1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.COM:80/%7euser/%c3%a9?b=%2f#part", "http://example.com/~user/%C3%A9?b=%2F"),
        ("https://example.com:443", "https://example.com/"),
        ("https://example.com:80/", "https://example.com:80/"),
        ("../d", "http://example.com/a/d"),
        ("?y=2", "http://example.com/a/b/c?y=2"),
        ("//other.org/x", "http://other.org/x"),
        ("/a/./b/../c//d", "http://example.com/a/c//d"),
        ("/%2e%2e/x", "http://example.com/x"),
        ("\\windows\\path?q=\\", "http://example.com/windows/path?q=%5C"),
        (" /a b\n/c ", "http://example.com/a%20b/c"),
        ("http://user:pass@example.com/", "http://example.com/"),
        ("http://bücher.example/straße", "http://xn--bcher-kva.example/stra%C3%9Fe"),
        ("http://example.com./", "http://example.com/"),
        ("http://[::1]:8000/x", "http://[::1]:8000/x"),
        ("/100%", "http://example.com/100%25"),
        ("/p?utm_source=x&id=1&UTM_medium=y", "http://example.com/p?id=1"),
        ("/p;jsessionid=1A2B?id=1", "http://example.com/p?id=1"),
        ("/p?", "http://example.com/p"),
        ("mailto:me@example.com", None),
        ("javascript:void(0)", None),
        ("ftp://example.com/", None),
        ("http://", None),
        ("http://exa mple.com/", None),
        ("http://example.com:99999/", None),
        ("http://[broken/", None),
    ],
)
def test_canonical(url: str, expected: str | None) -> None:
    assert canonical(url, BASE, ("utm_*", "jsessionid")) == expected


@given(st.text(max_size=60), st.sampled_from(["", BASE]))
def test_canonical_is_one_spelling(text: str, base: str) -> None:
    for url in (text, "http://example.com/" + text, "http://" + text):
        once = canonical(url, base)
        assert once is None or (canonical(once) == once and once.isascii() and " " not in once)


def test_dot_segments_as_the_url_standard_has_them(data: Path) -> None:
    cases = json.loads((data / "robots" / "urlcanon_path_dots.json").read_text())["special"]
    checked = {k: v for k, v in cases.items() if k.startswith("/") and "\\" not in k}
    assert len(checked) > 300
    assert {k: canonical("http://h" + k) for k in checked} == {k: "http://h" + v for k, v in checked.items()}


def test_scope() -> None:
    scope = Scope(["http://www.example.com/docs/"], [], ["/docs/"], [r"\.pdf$"], depth=3)
    assert scope.refusal("https://example.com/docs/x", 3) == ""
    assert scope.refusal("http://www.example.com/docs/x", 4) == "too deep"
    assert scope.refusal("http://sub.example.com/docs/x", 1) == "another host"
    assert scope.refusal("http://example.com:8080/docs/x", 1) == "another host"
    assert scope.refusal("http://example.com/blog/", 1) == "a pattern"
    assert scope.refusal("http://example.com/docs/x.pdf", 1) == "a pattern"
    assert scope.refusal("http://example.com/docs/" + "a/b/" * 4, 1) == "a trap"
    assert scope.refusal("http://example.com/docs/" + "a" * 3000, 1) == "a trap"
    below = Scope([], ["*.example.org"], [], [], 1)
    assert below.refusal("http://a.b.example.org/", 1) == "" and below.refusal("http://example.org/", 1) == ""
    assert below.refusal("http://badexample.org/", 1) == "another host"
    with pytest.raises(UserError, match=r"scope\.exclude"):
        Scope([], [], [], ["("], 1)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.1.1", "172.16.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1"],
)  # fmt: skip
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert all(map(is_public, ("1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1")))
    assert names_private("localhost") and names_private("127.0.0.1") and names_private("[::1]")
    assert not names_private("example.com") and not names_private("1.1.1.1")


def test_kinds_of_source(tmp_path: Path) -> None:
    (tmp_path / "x.warc").write_bytes(b"")
    assert classify("https://example.com") is Kind.URL
    assert classify(str(tmp_path)) is Kind.LOCAL and classify(str(tmp_path / "x.warc")) is Kind.LOCAL
    assert classify("hf:org/name") is Kind.HUB
    assert classify("cc:CC-MAIN-2024-10?url=example.com/*") is Kind.COMMON_CRAWL
    assert classify("demo") is Kind.DEMO
    for wrong, hint in (
        ("ftp://x.org/", "ftp"),
        ("example.com/docs", "https://example.com/docs"),
        ("http://", "no host"),
    ):
        with pytest.raises(ValueError, match=hint):
            CrawlConfig(source=wrong)
