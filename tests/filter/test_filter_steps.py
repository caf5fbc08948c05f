"""URL lists, language, extraction, one's own filter, personal data, token counts."""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from filter_helpers import PROSE, row, verdict
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.filter import pii
from llmctl.filter.config import (
    FilterConfig,
    LanguageSettings,
    OwnSettings,
    PiiSettings,
    UrlSettings,
)
from llmctl.filter.language import Language
from llmctl.filter.own import Own
from llmctl.filter.steps import first_failure
from llmctl.filter.tokens import TokenCounter
from llmctl.filter.url import UrlFilter

# URL


def url_verdict(url: str, **lists: object) -> str:
    failed = first_failure(UrlFilter(UrlSettings(**lists)), row("", url=url))  # type: ignore[arg-type]
    return failed.rule if failed else ""


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://bad.com/", "domain"),
        ("http://WWW.Bad.com:8080/x", "domain"),
        ("https://deep.sub.bad.com/x", "domain"),
        ("https://notbad.com/", ""),
        ("https://blog.fair.co.uk/", "subdomain"),
        ("https://fair.co.uk/", ""),
        ("https://shop.fair.co.uk/", ""),
        ("https://fine.com/one/page", "url"),
        ("http://fine.com/one/page", "url"),
        ("https://fine.com/one/page/2", ""),
        ("", ""),
    ],
)
def test_domains_hosts_and_addresses(url: str, rule: str) -> None:
    lists = {"domains": ["bad.com", "blog.fair.co.uk"], "urls": ["https://fine.com/one/page"]}
    assert url_verdict(url, **lists) == rule


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
    ],
)
def test_words_in_addresses(url: str, rule: str) -> None:
    lists = {"words": ["xxx"], "soft_words": ["dating", "video"], "subwords": ["casino"]}
    assert url_verdict(url, **lists) == rule


def test_case_can_be_ignored() -> None:
    assert url_verdict("https://a.com/XXX/1", words=["xxx"], ignore_case=True) == "hard_blacklisted"


def test_lists_come_from_files_too(data: Path, tmp_path: Path) -> None:
    lists = data / "blocklists"
    step = UrlFilter(UrlSettings(domains=[f"file:{lists / 'ut1_gambling.txt'}"],
                                 words=[f"file:{lists / 'datatrove_banned_words.txt'}"]))  # fmt: skip
    assert len(step.domains) > 4900 and len(step.words) == 203  # normalised, as the reference counts them
    some = next(d for d in sorted(step.domains) if d.count(".") == 1 and d.endswith(".com"))
    assert first_failure(step, row("", url=f"https://www.{some}/x")).detail == some  # type: ignore[union-attr]
    comments = tmp_path / "list.txt"
    comments.write_text("# no entry\n bad.com \n\n")
    assert UrlFilter(UrlSettings(domains=[f"file:{comments}"])).domains == {"bad.com"}


def test_a_list_that_is_not_there_is_a_mistake_of_the_settings() -> None:
    with pytest.raises(ValueError, match=r"no such file: nowhere\.txt"):
        UrlSettings(domains=["file:nowhere.txt"])


# Language


@pytest.fixture(scope="module")
def english() -> Language:
    return Language(LanguageSettings())


def test_language_is_found_and_noted(english: Language) -> None:
    found = row(PROSE)
    assert first_failure(english, found) is None
    assert found.language == "en" and found.language_score and found.language_score > 0.99
    german = row("Der Ausschuss traf sich am Dienstag, um über die Brücke am alten Wehr zu sprechen.")
    failed = first_failure(english, german)
    assert failed and german.language == "de" and failed.value is not None and failed.value < 0.1


@pytest.mark.parametrize("text", ["", "   ", "12345", "😀😃", "\n" * 100])
def test_what_is_no_language_is_dropped(english: Language, text: str) -> None:
    assert verdict(english, text) == "score"


def test_any_of_the_languages_may_score_and_none_means_any() -> None:
    german = "Der Ausschuss traf sich am Dienstag, um über die Brücke am alten Wehr zu sprechen."
    assert verdict(Language(LanguageSettings(languages=["en", "de"])), german) == ""
    assert verdict(Language(LanguageSettings(languages=[])), german) == ""
    assert verdict(Language(LanguageSettings(languages=[])), "ok") == "score"
    assert verdict(Language(LanguageSettings(threshold=None)), german) == ""


def test_a_score_equal_to_the_threshold_fails() -> None:
    step = Language(LanguageSettings(languages=["en"], threshold=0.5))
    step.scores = lambda text: {"de": 0.5, "en": float(text)}
    assert verdict(step, "0.5") == "score"
    assert verdict(step, "0.50001") == ""


def test_a_fasttext_model_by_its_path(data: Path, tmp_path: Path) -> None:
    step = Language(LanguageSettings(model=str(data / "lang" / "lid.176.ftz")))
    assert verdict(step, PROSE) == ""
    assert verdict(step, "Der Ausschuss traf sich am Dienstag, um über die Brücke zu sprechen.") == "score"
    wrong = tmp_path / "model.bin"
    wrong.write_bytes(b"no model")
    with pytest.raises(UserError, match="no fastText model"):
        verdict(Language(LanguageSettings(model=str(wrong))), PROSE)


@pytest.mark.slow
def test_the_built_in_model_agrees_with_fasttext_on_real_sentences(data: Path) -> None:
    ours, theirs = Language(LanguageSettings()), Language(LanguageSettings(model=str(data / "lang" / "lid.176.ftz")))
    with gzip.open(data / "lang" / "lingua_sentences.jsonl.gz", "rt", encoding="utf-8") as f:
        texts = [r["text"] for r in map(json.loads, f) if len(r["text"]) > 100][::40]
    same = sum(verdict(ours, t) == verdict(theirs, t) for t in texts)
    assert len(texts) > 100 and same / len(texts) > 0.97


# One's own


def own(name: str) -> Own:
    return Own(OwnSettings(function=f"own_filters:{name}"))


def test_a_filter_of_ones_own_drops_for_its_reason() -> None:
    assert verdict(own("no_bridges"), PROSE) == "bridge"
    assert verdict(own("no_bridges"), "a river") == ""


def test_a_filter_that_raises_ends_with_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"(?s)own_filters.py:\d+: .*own_filters:raises raised KeyError.*document 'x'"):
        verdict(own("raises"), PROSE)


def test_a_filter_that_answers_something_else_is_told_what_to_return() -> None:
    with pytest.raises(UserError, match="returned 'maybe'"):
        verdict(own("says_maybe"), PROSE)


@pytest.mark.parametrize(
    ("name", "message"),
    [("no_such_module:f", "no module 'no_such_module'"), ("own_filters:no_bridge", "did you mean 'no_bridges'"),
     ("own_filters:NOT_CALLABLE", "no function")],
)  # fmt: skip
def test_a_filter_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        verdict(Own(OwnSettings(function=name)), PROSE)


def test_a_filters_name_is_checked_with_the_settings() -> None:
    with pytest.raises(ValueError, match="module:function"):
        OwnSettings(function="just_a_name")


def test_a_changed_filter_or_list_changes_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def f(d): return True\n")
    (tmp_path / "list.txt").write_text("a.com\n")
    config = FilterConfig.model_validate(
        {"pages": "p", "own": {"function": "mine:f"}, "url": {"domains": ["file:list.txt"]}}
    )
    before = config.recorded(fingerprint=True)
    (tmp_path / "mine.py").write_text("def f(d): return False\n")
    between = config.recorded(fingerprint=True)
    (tmp_path / "list.txt").write_text("b.com\n")
    assert before != between != config.recorded(fingerprint=True)
    assert "files" not in config.recorded()


# Personal data

ALL = PiiSettings(phone=True)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("write to a.b+c@mail.example.co.uk.", "write to email@example.com."),
        ("x@y.de, y@z.de and z@a.de", "email@example.com, firstname.lastname@example.org and email@example.com"),
        ("no @ here, nor@here, nor a@b", "no @ here, nor@here, nor a@b"),
        ("me@[8.8.8.8] and you@[8.8.8.x:]", "email@example.com and firstname.lastname@example.org"),
        ("server 8.8.8.8 and 1.1.1.1", "server 22.214.171.124 and 126.96.36.199"),
        ("home 192.168.0.1, 10.0.0.1, 127.0.0.1", "home 192.168.0.1, 10.0.0.1, 127.0.0.1"),
        ("1.2.3.456", "22.214.171.1246"),  # no boundary around it, as in datatrove
        ("version 1.2.3", "version 1.2.3"),
        ("call (212) 555-1234 or +44 20 7946 0958.", "call (555) 555-0100 or (555) 555-0100."),
        ("on 2024-01-02, 01.02.2024, 12 345 678 people, +12.5", "on 2024-01-02, 01.02.2024, 12 345 678 people, +12.5"),
        ("", ""),
    ],
)
def test_personal_data(text: str, cleaned: str) -> None:
    assert pii.replace(text, ALL)[0] == cleaned


def test_what_is_replaced_is_counted_and_can_be_switched_off() -> None:
    text = "a@b.com 8.8.8.8 (212) 555-1234"
    assert pii.replace(text, PiiSettings()) == (
        "email@example.com 22.214.171.124 (212) 555-1234",
        {"email": 1, "ip": 1},
    )
    assert pii.replace(text, PiiSettings(email=False, ip=False)) == (text, {})


_EMAIL = re.compile(
    r"\b[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@(?:(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?|\[(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}"
    r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?|[A-Za-z0-9-]*[A-Za-z0-9]:)])"
)


@given(st.text(alphabet="ab1.-_@+[] é\n", max_size=60))
@settings(max_examples=1500, deadline=None)
def test_email_addresses_are_those_of_datatroves_expression(text: str) -> None:
    assert list(pii.emails(text)) == [m.span() for m in _EMAIL.finditer(text)]


def test_email_addresses_in_real_text_are_those_of_datatroves_expression(data: Path) -> None:
    with gzip.open(data / "text" / "python_peps.jsonl.gz", "rt", encoding="utf-8") as f:
        texts = [json.loads(line)["text"] for line in f]
    found = [list(pii.emails(t)) for t in texts]
    assert found == [[m.span() for m in _EMAIL.finditer(t)] for t in texts] and sum(map(len, found)) > 50


@pytest.mark.parametrize("unit", ["a-", "a.", "a@", "@", "a@b.", "1.", "1-", "(", "1 "])
def test_a_megabyte_of_anything_takes_seconds(unit: str) -> None:
    pii.replace(unit * (1_000_000 // len(unit)) + "@", ALL)


def test_telephone_numbers_of_made_up_persons(data: Path) -> None:
    with gzip.open(data / "pii" / "presidio_synth_v2.jsonl.gz", "rt", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    numbers = [s["entity_value"] for r in rows for s in r["spans"] if s["entity_type"] == "PHONE_NUMBER"]
    found = sum(pii.replace(f"call {n} now", PiiSettings(email=False, ip=False, phone=True))[1] != {} for n in numbers)
    assert len(numbers) > 50 and found / len(numbers) > 0.5  # many are local numbers, without an area code


# Token counts


def test_tokens_are_counted_without_special_ones(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2, "<s>": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert TokenCounter(path).counts(["a b a", "", "c"]) == [3, 0, 1]
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        TokenCounter(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="no tokenizer"):
        TokenCounter(tmp_path)
