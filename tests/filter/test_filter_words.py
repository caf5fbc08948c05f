"""The words and sentences of a text: by hand, as properties, and against spaCy's own tokenizer."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.filter import word_classes, words
from llmctl.filter.word_exceptions import exceptions
from llmctl.filter.word_split import chunk_words, text_words
from llmctl.filter.words import count, numbered, sentences

# What meets in a hard text: the known strings, marks of many scripts, units, addresses, all kinds of white space.
PIECES = [
    *exceptions(), *"aAbZéßДд你م😀°²µ1890.,:;!?\'\"’()[]{}<>-–—~+*^=/\\\\#$£%@_&|…§",
    ".", ".", "?", "!", "\n", "\t", "\u00a0", " ", " ", "  ", " \n",
    "\u2028", "\u0301", "\u200d", "\ufeff", "。", "؟", "»", "km", "mb", "US$", "C$",
    "’S", "°C.", "http://", "www.", "example.com", "192.168.1.1", "8.8.8.8", "me@example.org", ":8080", "/path?x=1",
    "...", "--", "1,000", "3.14", "U.S.", "bar.Baz", "well-known", "x:) )", "〈", "\u2329", "ـ",
]  # fmt: skip


@pytest.fixture(scope="module")
def spacy_english() -> Any:
    english = pytest.importorskip("spacy").blank("en")
    english.add_pipe("sentencizer")
    return english


def check(english: Any, text: str) -> None:
    """The tokens, white space among them, the words and the sentences are spaCy's."""
    expected = english(text)
    assert text_words(text) == [token.text for token in expected], repr(text)
    assert words.words(text) == [token.text for token in expected if token.text.strip()], repr(text)
    spans = [span for span in expected.sents if span.text.strip()] if len(expected) else []
    assert sentences(text) == len(spans), repr(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", "Hello|,|world|!"),
        ("I don't know; it's John's.", "I|do|n't|know|;|it|'s|John|'s|."),
        ("dont, Its, im, Ill", "do|nt|,|Its|,|i|m|,|Ill"),
        ("3.14 of 1,000 in 2024.", "3.14|of|1,000|in|2024|."),
        ("see https://example.com/a?b=c.", "see|https://example.com/a?b=c|."),
        ("(see example.com/a)", "(|see|example.com/a|)"),
        ("write to me@example.com!", "write|to|me@example.com|!"),
        ("the U.S. army, e.g. Mr. X", "the|U.S.|army|,|e.g.|Mr.|X"),
        ("at 9a.m. he ran 10km for 5$", "at|9|a.m.|he|ran|10|km|for|5|$"),
        ("wait...what ... now", "wait|...|what|...|now"),
        ("well-known (os.path) end.Begin", "well|-|known|(|os.path|)|end|.|Begin"),
        ("a\u00a0b\r\nc", "a|b|c"),
        ("fun:) so :-) foo:) ) x:) a", "fun|:)|so|:-)|foo|:|)|)|x|:)|a"),
        ("", ""),
        (" \n\t", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words.words(text) == [word for word in expected.split("|") if word]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), (" \n", 0), ("one", 1), ("One. Two.", 2), ("He said “no.” Then he left.", 2), ("Really?! Yes.", 2),
     ("...", 1), ("Mr. Smith paid 3.50 for it.", 1), ("你好 。 再见 。", 2), ("One. \n", 1), ("One. . Two", 2),
     ("One.  . Two", 3), (" . Two", 2)],
)  # fmt: skip
def test_sentences(text: str, expected: int) -> None:
    assert sentences(text) == expected


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_words_lose_nothing_but_white_space(text: str) -> None:
    assert "".join(words.words(text)) == "".join(text.split())


def test_numbers_mean_the_words_and_tables_what_they_are() -> None:
    found = numbered("The cat, and the 2 dogs -- #1 Ünder ...")
    tokens = [found.vocabulary.words[n] for n in found.numbers]
    assert tokens == words.words(found.text)
    assert found.lengths.tolist() == [len(token) for token in tokens]
    assert found.ends.tolist() == [0, *np.cumsum(found.lengths).tolist()]
    wordy = {"The", "cat", "and", "the", "2", "dogs", "1", "Ünder"}
    assert {t for t, kind in zip(tokens, found.kinds, strict=True) if kind & words.WORDY} == wordy
    assert {t for t, kind in zip(tokens, found.kinds, strict=True) if kind & words.LETTER} == wordy - {"1", "2"}
    assert {t for t, kind in zip(tokens, found.kinds, strict=True) if kind >> words.FIRST_STOP_WORD} == {"and", "the"}
    assert count(found.text) == len(found) == len(tokens)


def test_a_full_vocabulary_is_dropped_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST_CHUNKS", 20)
    monkeypatch.setattr(words, "_vocabulary", words.Vocabulary())
    texts = [f"It's doc{i}, the one (of x:) ) with a{i} and 10km{i}. b{i}" for i in range(50)]
    first = numbered(texts[0])
    kept = [first.vocabulary.words[n] for n in first.numbers], first.kinds.tolist()
    for text in texts:
        alone = [w for w in text_words(text) if not w.isspace()]
        assert words.words(text) == alone and count(text) == len(alone)
        assert len(words._vocabulary) < 60
        assert sentences(text) == 2
    again = numbered(texts[0])
    assert again.vocabulary is not first.vocabulary
    assert kept == ([again.vocabulary.words[n] for n in again.numbers], again.kinds.tolist())
    assert kept[0] == [first.vocabulary.words[n] for n in first.numbers]


def test_long_chunks_are_split_but_not_kept() -> None:
    long = "x" * 70 + ",y" * 20
    assert words.words(long) == words.words(long) == list(chunk_words(long)[0])
    assert long not in words._vocabulary


@pytest.mark.parametrize("text", ["lone \ud800 surrogate", "nul \0 and \x1f unit", "\ufeffmark", "a" * 200_000])
def test_odd_texts_are_split(text: str) -> None:
    assert "".join(words.words(text)) == "".join(text.split())


# Against spaCy


def test_known_strings_are_spacys(spacy_english: Any) -> None:
    from spacy.symbols import ORTH

    rules = spacy_english.tokenizer.rules.items()
    assert exceptions() == {text: tuple(t[ORTH] for t in tokens) for text, tokens in rules if not text.isspace()}


def test_character_classes_are_spacys() -> None:
    theirs = pytest.importorskip("spacy.lang.char_classes")
    everything = "".join(chr(n) for n in range(0x110000) if not 0xD800 <= n <= 0xDFFF)
    pairs = ((word_classes.ALPHA, theirs.ALPHA), (word_classes.LOWER, theirs.ALPHA_LOWER),
             (word_classes.UPPER, theirs.ALPHA_UPPER), (word_classes.ICONS, theirs.CONCAT_ICONS))  # fmt: skip
    for mine, their in pairs:
        assert re.findall(f"[{mine}]", everything) == re.findall(f"[{their}]", everything)


def test_every_character_alone_and_between_others_is_split_as_by_spacy(spacy_english: Any) -> None:
    from unicodedata import category

    for n in range(0x20, 0x1FB00):
        c = chr(n)
        # Every mark, symbol and number, and one letter in fifty.
        if category(c) not in ("Cn", "Co", "Cs") and (category(c)[0] != "L" or n % 50 == 0):
            text = f"{c} {c}a {c}1 x{c} 5{c} B{c}. ab{c}cd a.{c} 2{c}a"
            assert text_words(text) == [t.text for t in spacy_english.tokenizer(text)], hex(n)


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@settings(max_examples=1500, deadline=None)
def test_pieces_are_split_as_by_spacy(spacy_english: Any, text: str) -> None:
    check(spacy_english, text)


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_split_as_by_spacy(spacy_english: Any, text: str) -> None:
    check(spacy_english, "".join(c for c in text if not 0xD800 <= ord(c) <= 0xDFFF))


@pytest.mark.parametrize(
    "unit", ["a.a.", "a-a-", "(((", "1,1,", "don't", "http://", "a@a.", "a:@", ".", "..x", "x:)", "'s", "😀", "(a)"]
)
def test_long_chunks_are_split_as_by_spacy(spacy_english: Any, unit: str) -> None:
    for times in (22, 33, 101):
        check(spacy_english, unit * times)
        check(spacy_english, "(" + unit * times + ").")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["text/c4_demo.jsonl.gz", "lang/udhr.jsonl.gz", "lang/lingua_sentences.jsonl.gz",
             "text/python_peps.jsonl.gz", "chat/gpteacher_codegen.jsonl.gz", "text/arxiv_redpajama_sample.jsonl.gz"],
)  # fmt: skip
def test_real_texts_are_split_as_by_spacy(spacy_english: Any, data: Path, name: str) -> None:
    with gzip.open(data / name, "rt", encoding="utf-8", newline="\n") as file:
        texts = [text for line in file for text in _strings(json.loads(line))]
    random.Random(0).shuffle(texts)
    for text in texts[:150]:
        check(spacy_english, text[:30_000])
