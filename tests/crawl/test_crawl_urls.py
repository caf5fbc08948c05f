"""Addresses: one spelling, and which are followed."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.crawl.config import CrawlConfig
from llmctl.crawl.network import is_public, names_private
from llmctl.crawl.sources import Kind, classify
from llmctl.crawl.urls import Scope, canonical, family
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
        ("http://%65xample%2ecom/", "http://example.com/"),
        ("http://faß.example/", "http://xn--fa-hia.example/"),
        ("http://i❤.ws/", "http://xn--i-7iq.ws/"),
        ("http:///example.com/", "http://example.com/"),
        ("http:\\\\example.com\\x", "http://example.com/x"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://1.2.3.400/", None),
        ("http://%00/", None),
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


# What urlcanon makes the same and a server may tell apart, so that the page asked for would be another one; and hosts
# that no browser takes. By the input.
LEFT = {
    "double slashes": r"[^:/]//|\\\\",
    "decoded again and again": r"%25|%%",
    "reserved characters decoded": r"/[^?]*%(?:28|3a|3e|40)",
    "query sorted": r"\?(?:%26|%3d|c=d&a=b)",
    "bytes that are no UTF-8": r"\x91",
    "no host": r"^(?:https?:/*)?(?:%(?:/|$|20|2e)| |\.|\x01|09/|0x\.|host%23)",
}


def test_canonical_as_urlcanon_has_it(data: Path) -> None:
    cases = json.loads((data / "robots" / "urlcanon_semantic_precise.json").read_text())
    same, left = 0, Counter[str]()
    for written, wanted in cases.items():
        if not wanted.startswith(("http:", "https:")):
            continue
        try:
            url = written.encode("latin-1").decode("utf-8").strip()  # the cases are bytes
        except UnicodeError:
            url = written
        url = url if re.match(r"\s*h[\s]*t[\s]*t[\s]*p", url, re.IGNORECASE) else "http://" + url
        if canonical(url) is not None and canonical(url) == canonical(wanted):  # but for fragments, which we cut
            same += 1
        else:
            reasons = [why for why, pattern in LEFT.items() if re.search(pattern, url, re.IGNORECASE)]
            assert reasons, (written, wanted, canonical(url))
            left[reasons[0]] += 1
    assert (same, left.total()) == (114, 48), left


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h/calendar?month=3", "http://h/calendar"),
        ("http://h/events/2024/05/", "http://h/events/*"),
        ("http://h/events/2024-05-31", "http://h/events/*"),
        ("http://h/day/20240531", "http://h/day/*"),
        ("http://h/post/2024/05/31/a-title", ""),
        ("http://h/item/2616", ""),
        ("http://h/item/19993101", ""),
        ("http://h/(S(lit3py55t21z5v55vlm25s55))/a.aspx", "http://h/*/a.aspx"),
        ("http://h/s/0123456789abcdef0123/cart", "http://h/s/*/cart"),
        ("http://h/news/0123456789abcdef0123", ""),
        ("http://h/123e4567-e89b-12d3-a456-426614174000/view", "http://h/*/view"),
        ("http://h/a-decade-of-bad-facades/x", ""),
    ],
)
def test_families(url: str, expected: str) -> None:
    assert family(url) == expected


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
