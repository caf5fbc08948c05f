"""Addresses against block lists: by hand, and against datatrove's filter with the same lists."""

from __future__ import annotations

import random
import sys
import types
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.filter import block_list
from llmctl.filter.config import UrlSettings
from llmctl.filter.row import Row
from llmctl.filter.url import UrlFilter, registered_domain
from llmctl.formats.document import Document


def page(url: str) -> Row:
    return Row(Document(id="x", html=b"<p>", url=url))


def failures(step: UrlFilter, row: Row) -> list[str]:
    return [r.name for r, v in zip(step.rules, step(row), strict=True) if v > (r.threshold or 0)]


def verdict(url: str, **lists: Any) -> str:
    """The first rule that drops the address, or ""."""
    return next(iter(failures(UrlFilter(UrlSettings(**lists)), page(url))), "")


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://bad.com/", "domain"),
        ("http://WWW.Bad.com:8080/x", "domain"),
        ("https://deep.sub.bad.com/x", "domain"),
        ("https://user:word@bad.com/x", "domain"),
        ("bad.com/x", "domain"),
        ("//bad.com", "domain"),
        ("https://bad.com?x=//fine.com/", "domain"),
        ("https://bad.com#//fine.com/", "domain"),
        ("https://fine.com//bad.com/", ""),
        ("https://notbad.com/", ""),
        ("https://bad.com.fine.com/", ""),
        ("https://blog.fair.co.uk/", "subdomain"),
        ("https://fair.co.uk/", ""),
        ("https://shop.fair.co.uk/", ""),
        ("https://fine.com/one/page", "url"),
        ("http://fine.com/one/page", "url"),
        ("https://fine.com/one/page/2", ""),
        ("http://192.0.2.7/x", "domain"),
        ("http://192.0.2.8/x", ""),
        ("not an address at all", ""),
        ("", ""),
    ],
)
def test_domains_hosts_and_addresses(url: str, rule: str) -> None:
    lists = {"domains": ["bad.com", "blog.fair.co.uk", "192.0.2.7"], "urls": ["https://fine.com/one/page"]}
    assert verdict(url, **lists) == rule


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://a.com/xxx/1", "hard_blacklisted"),
        ("https://a.com/XXX/1", ""),  # case matters, as in FineWeb
        ("https://a.com/xxxl/1", ""),
        ("https://a.com/dating/1", ""),
        ("https://a.com/dating/dating", ""),  # one soft word, twice
        ("https://a.com/dating-video/1", "soft_blacklisted"),
        ("https://a.com/ca-si/no/", "blacklisted_subword"),
        ("https://a.com/CASINOS", "blacklisted_subword"),
        ("https://a.com/poker", "blacklisted_subword"),
    ],
)
def test_words_in_addresses(url: str, rule: str) -> None:
    lists = {"words": ["xxx"], "soft_words": ["dating", "video"], "subwords": ["casino", "poker", "casa"]}
    assert verdict(url, **lists) == rule


def test_case_can_be_ignored() -> None:
    assert verdict("https://a.com/XXX/1", words=["xxx"], ignore_case=True) == "hard_blacklisted"


def test_every_rule_is_measured_and_says_which_entries_it_found() -> None:
    step = UrlFilter(
        UrlSettings(
            domains=["bad.com"], words=["xxx", "yyy"], soft_words=["dating", "video", "chat"], subwords=["sino"]
        )
    )
    row = page("https://bad.com/xxx/yyy/video/chat/ca-si-no")
    assert list(step(row)) == [1, 1, 0, 2, 2, 1]
    assert row.details == {"domain": "bad.com", "subdomain": "bad.com", "hard_blacklisted": "xxx yyy",
                           "soft_blacklisted": "chat video", "blacklisted_subword": "sino"}  # fmt: skip
    assert all(v != v for v in step(page("")))  # nothing is measured where there is no address


@pytest.mark.parametrize(("most", "dropped"), [(1, True), (2, True), (3, False)])
def test_how_many_soft_words_it_takes(most: int, dropped: bool) -> None:
    found = verdict("https://a.com/dating/video", soft_words=["dating", "video", "chat"], soft_word_count=most)
    assert (found == "soft_blacklisted") is dropped


def test_lists_come_from_files_too(data: Path, tmp_path: Path) -> None:
    lists = data / "blocklists"
    step = UrlFilter(UrlSettings(domains=[f"file:{lists / 'ut1_gambling.txt'}"],
                                 words=[f"file:{lists / 'datatrove_banned_words.txt'}"]))  # fmt: skip
    assert len(step.domains) > 4900 and len(step.words) == 203  # normalised, as the reference counts them
    some = next(d for d in sorted(step.domains) if d.count(".") == 1 and d.endswith(".com"))
    row = page(f"https://www.{some}/x")
    assert failures(step, row) == ["domain"] and row.details["domain"] == some
    comments = tmp_path / "list.txt"
    comments.write_bytes(b"# no entry\n bad.com \r\n\n\xff\n")
    assert set(UrlFilter(UrlSettings(domains=[f"file:{comments}"])).domains) == {"bad.com", "\ufffd"}


def test_a_list_that_is_not_there_is_a_mistake_of_the_settings() -> None:
    with pytest.raises(ValueError, match=r"no such file: nowhere\.txt"):
        UrlSettings(domains=["file:nowhere.txt"])


@given(st.sets(st.text(max_size=8), max_size=50), st.lists(st.text(max_size=8), max_size=50))
def test_a_lean_list_holds_what_a_set_holds(names: set[str], asked: list[str]) -> None:
    lean = block_list.BlockList(names)
    assert {n for n in [*asked, *names] if n in lean} == {n for n in [*asked, *names] if n in names}
    assert sorted(lean) == sorted(names) and 5 not in lean


def test_names_with_the_same_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_list, "hash", lambda key: len(key), raising=False)
    lean = block_list.BlockList(["ab", "cd", "xyz"])
    assert [n in lean for n in ("ab", "cd", "ef", "xyz", "x")] == [True, True, False, True, False]


def test_a_long_list_becomes_a_lean_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_list, "_SMALL", 3)
    short, long = (block_list.block_list(f"{i}.com" for i in range(n)) for n in (3, 4))
    assert isinstance(short, frozenset) and isinstance(long, block_list.BlockList)
    assert sorted(long) == ["0.com", "1.com", "2.com", "3.com"]


# Against datatrove


class Automaton(list):  # type: ignore[type-arg]
    """What datatrove takes from pyahocorasick, which it does not bring along."""

    def add_word(self, word: str, _: int) -> None:
        self.append(word)

    def make_automaton(self) -> None: ...

    def iter(self, text: str) -> Any:
        return (word for word in self if word in text)


@cache
def tldextractor() -> Any:
    return pytest.importorskip("tldextract").TLDExtract(suffix_list_urls=(), cache_dir=None)


def datatroves(monkeypatch: pytest.MonkeyPatch, **lists: list[str]) -> Any:
    """Its filter, with a stand-in for a package that it does not bring along, and without asking the network."""
    pytest.importorskip("datatrove")
    module: Any = types.ModuleType("ahocorasick")
    module.Automaton, module.STORE_INTS = lambda _: Automaton(), 1
    monkeypatch.setitem(sys.modules, "ahocorasick", module)
    monkeypatch.setattr("datatrove.pipeline.base.check_required_dependencies", lambda *_: None)
    from datatrove.pipeline.filters.url_filter import URLFilter

    theirs = URLFilter(**lists, use_integrated_lists=False)
    theirs.tldextractor = tldextractor()
    return theirs


def made_urls(hosts: list[str], words: list[str], count: int) -> list[str]:
    """Addresses, a part of them with a listed host, and a part with listed words in various spellings."""
    rnd = random.Random(0)
    plain = [
        "news",
        "2024",
        "06",
        "The-Best-Recipes",
        "index.html",
        "id=7&x=%20y",
        "a_b",
        "blog",
        "é",
        "",
        "~me",
        "x-y",
    ]
    found = []
    for i in range(count):
        ends = ["com", "co.uk", "de", "com.br", "blogspot.com", "notld", "xn--p1ai", "香港"]
        host = rnd.choice(hosts) if i % 4 == 0 else f"{rnd.choice(['www.', '', 'a.b.'])}site{i}.{rnd.choice(ends)}"
        host = rnd.choice(["", "", "www.", "x."]) + host + rnd.choice(["", "", "", ":8080"])
        parts = [rnd.choice(plain) for _ in range(rnd.randrange(6))]
        for _ in range(rnd.choice([0, 0, 1, 2])):
            word = rnd.choice(words)
            word = rnd.choice([word, word.upper(), word + "s", "-".join(word), word[:2] + "/" + word[2:]])
            parts.insert(rnd.randrange(len(parts) + 1), word)
        found.append(f"{rnd.choice(['http', 'https'])}://{host}/{rnd.choice(['/', '-', '?', '_', '.']).join(parts)}")
    return found


@pytest.mark.parametrize("threshold", [1, 2])
def test_the_same_rule_drops_as_in_datatrove(data: Path, monkeypatch: pytest.MonkeyPatch, threshold: int) -> None:
    lists = data / "blocklists"
    hard, sub, soft = (lists / f"datatrove_{kind}banned_{what}.txt" for kind, what in
                       (("", "words"), ("", "subwords"), ("soft_", "words")))  # fmt: skip
    # A listed IP address is none to datatrove: see below.
    hosts = [
        h for h in (lists / "ut1_dating.txt").read_text().split("\n") if h and "/" not in h and not h[-1].isdigit()
    ]
    words = [w for file in (hard, sub, soft) for w in file.read_text().split("\n") if w and w[0] != "#"]
    urls = made_urls(hosts, words, 6000)
    theirs = datatroves(
        monkeypatch, soft_word_threshold=threshold, extra_domains=hosts[::2], extra_urls=urls[:99],
        banned_words=hard.read_text().splitlines(), banned_subwords=sub.read_text().splitlines(),
        soft_banned_words=soft.read_text().splitlines(),
    )  # fmt: skip
    ours = UrlFilter(UrlSettings(domains=hosts[::2], urls=urls[:99], words=[f"file:{hard}"], subwords=[f"file:{sub}"],
                                 soft_words=[f"file:{soft}"], soft_word_count=threshold))  # fmt: skip
    from datatrove.data import Document as Theirs

    seen = set()
    for url in urls:
        answer = theirs.filter(Theirs(text="", id="", metadata={"url": url}))
        expected = "" if answer is True else answer[1]
        assert next(iter(failures(ours, page(url))), "") == expected, url
        seen.add(expected)
    assert seen == {"", *(rule.name for rule in ours.rules)}


def test_where_it_differs_from_datatrove_a_listed_page_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datatrove")
    from datatrove.data import Document as Theirs

    theirs = datatroves(monkeypatch, extra_domains=["bad.com", "192.0.2.7"], extra_urls=["fine.com/page"])
    for url, rule in [("https://BAD.com/", "domain"), ("http://192.0.2.7/", "domain"), ("http://fine.com/page", "url")]:
        assert theirs.filter(Theirs(text="", id="", metadata={"url": url})) is True
        assert verdict(url, domains=["bad.com", "192.0.2.7"], urls=["fine.com/page"]) == rule


@given(st.text(alphabet="ab.:/?#@[]-é1 \t", max_size=30))
def test_any_host_is_what_tldextract_says(url: str) -> None:
    found = tldextractor()(url)
    if found.suffix and found.domain:
        assert registered_domain(url)[0] == f"{found.domain}.{found.suffix}".lower()
