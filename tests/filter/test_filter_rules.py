"""Each rule by hand, on both sides of its threshold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from filter_helpers import PROSE, measured, row, verdict
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.filter import characters
from llmctl.filter.c4 import C4
from llmctl.filter.config import (
    C4Settings,
    FineWebQualitySettings,
    GopherQualitySettings,
    GopherRepetitionSettings,
)
from llmctl.filter.fineweb_quality import FineWebQuality
from llmctl.filter.gopher_quality import GopherQuality
from llmctl.filter.gopher_repetition import GopherRepetition, duplicates, repeated_ngrams, top_ngram
from llmctl.filter.steps import first_failure
from llmctl.filter.words import sentences, words

REPETITION = GopherRepetition(GopherRepetitionSettings())
QUALITY = GopherQuality(GopherQualitySettings())
CLEAN = C4(C4Settings())
FINEWEB = FineWebQuality(FineWebQualitySettings())


def only(group: type, **kept: object) -> object:
    """Settings with every rule off but `kept`."""
    fields = group.model_fields  # type: ignore[attr-defined]
    return group(**{k: None for k, f in fields.items() if f.default is not None and k != "enabled"
                    and "None" in str(f.annotation)} | kept)  # fmt: skip


def test_the_sets_of_characters_are_datatroves() -> None:
    assert len(characters.PUNCTUATION) == len(set(characters.PUNCTUATION)) == 129
    assert len(characters.TERMINAL_PUNCTUATION) == 159 and len(characters.PUNCTUATION_SET) == 281
    assert len(characters.SENTENCE_ENDS) == 128
    assert [c for c in characters.TERMINAL_PUNCTUATION if ord(c) < 256] == ["!", ".", "?"]
    assert not set("\t\n ") & characters.PUNCTUATION_SET


@pytest.mark.parametrize("step", [REPETITION, QUALITY, CLEAN, FINEWEB])
def test_prose_passes(step: object) -> None:
    assert verdict(step, PROSE) == ""  # type: ignore[arg-type]


# Words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world!", ["Hello", ",", "world", "!"]),
        ("I don't know; it's John's.", ["I", "do", "n't", "know", ";", "it", "'s", "John", "'s", "."]),
        ("3.14 of 1,000 in 2024.", ["3.14", "of", "1,000", "in", "2024", "."]),
        ("see https://example.com/a?b=c.", ["see", "https://example.com/a?b=c", "."]),
        ("write to me@example.com!", ["write", "to", "me@example.com", "!"]),
        ("the U.S. army, e.g. Mr. X", ["the", "U.S.", "army", ",", "e.g.", "Mr.", "X"]),
        ("wait ... what", ["wait", "...", "what"]),
        ("well-known (os.path)", ["well", "-", "known", "(", "os.path", ")"]),
        ("a\u00a0b\r\nc", ["a", "b", "c"]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert list(words(text)) == expected


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_words_lose_nothing_but_white_space(text: str) -> None:
    assert "".join(words(text)) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("one", 1), ("One. Two.", 2), ("He said “no.” Then he left.", 2), ("Really?! Yes.", 2), ("...", 1),
     ("Mr. Smith paid 3.50 for it.", 1), ("你好。再见。", 2)],
)  # fmt: skip
def test_sentences(text: str, count: int) -> None:
    assert sentences(text) == count


# Gopher repetition


def test_duplicates_do_not_count_the_first() -> None:
    assert duplicates(["ab", "c", "ab", "ab"]) == (2, 4)
    assert duplicates([]) == (0, 0)


@pytest.mark.parametrize(
    ("rule", "joint", "text_of"),
    [("dup_para_frac", "\n\n", None), ("dup_line_frac", "\n", None)],
)
def test_repeated_paragraphs_and_lines_fail_strictly_above_a_third_of_a_share(
    rule: str, joint: str, text_of: object
) -> None:
    step = GopherRepetition(only(GopherRepetitionSettings, **{rule: 0.30}))  # type: ignore[arg-type]
    seven = [f"part number {i}" for i in range(7)]
    assert verdict(step, joint.join([*seven, *seven[:3]])) == ""  # 3 of 10 is not above 0.30
    assert verdict(step, joint.join([*seven, *seven[:4]])) == rule  # 4 of 11 is


@pytest.mark.parametrize(("rule", "joint"), [("dup_para_char_frac", "\n\n"), ("dup_line_char_frac", "\n")])
def test_repeated_characters_count_against_the_whole_text(rule: str, joint: str) -> None:
    step = GopherRepetition(only(GopherRepetitionSettings, **{rule: 0.20}))  # type: ignore[arg-type]

    def text(repeated: int) -> str:
        parts = ["x" * repeated, "y" * 10, "x" * repeated]
        rest = 100 - len(joint.join(parts)) - len(joint)
        return joint.join([*parts, "z" * rest])

    assert len(text(20)) == len(text(21)) == 100
    assert verdict(step, text(20)) == ""
    assert verdict(step, text(21)) == rule


def test_a_newline_at_the_end_adds_an_empty_line_but_no_paragraph() -> None:
    values = measured(REPETITION, "a\n\nb\n\na\n\n")
    assert values["dup_para_frac"] == 1 / 3  # of the stripped text
    assert values["dup_line_frac"] == 1 / 4


def test_a_few_words_fail_by_their_most_frequent_pair_though_it_occurs_once() -> None:
    assert verdict(REPETITION, "Short unique words here now") == "top_2_gram"


def test_top_ngrams_count_their_spaces_and_take_the_first_of_equals() -> None:
    assert top_ngram(["a", "b", "a", "b"], 2) == 6  # "a b" twice
    assert top_ngram(["aaa", "b", "c"], 2) == 5  # all once: the first
    assert top_ngram(["a"], 2) == 0


def test_repeated_ngrams_do_not_overlap() -> None:
    found = list("abcdeabcdeabcde")
    assert repeated_ngrams(found, 5) == 10
    assert repeated_ngrams(["a"] * 6, 5) == 5  # a repeat may overlap the first occurrence, not another repeat
    assert repeated_ngrams(["a"] * 11, 5) == 10
    assert repeated_ngrams([], 5) == 0


@pytest.mark.parametrize("n", range(5, 11))
def test_repeated_ngrams_against_the_definition(n: int) -> None:
    found = list(words(PROSE)) * 2 + list(words(PROSE))[:40]
    seen, characters_, at = set(), 0, 0
    while at < len(found) - n + 1:
        gram = "".join(found[at : at + n])
        if gram in seen:
            characters_, at = characters_ + len(gram), at + n
        else:
            seen.add(gram)
            at += 1
    assert repeated_ngrams(found, n) == characters_ > 0


def test_the_order_of_the_repetition_rules() -> None:
    rules = [check.rule for check in REPETITION(row(PROSE))]
    assert rules == [
        "dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac", "top_2_gram", "top_3_gram",
        "top_4_gram", *(f"duplicated_{n}_n_grams" for n in range(5, 11)),
    ]  # fmt: skip
    assert verdict(REPETITION, "") == "empty"


# Gopher quality


def quality(**kept: object) -> GopherQuality:
    return GopherQuality(only(GopherQualitySettings, **kept))  # type: ignore[arg-type]


def test_length_counts_words_that_are_not_punctuation() -> None:
    step = quality(min_words=50, max_words=60)
    assert verdict(step, "word " * 50) == ""
    assert verdict(step, "word " * 49 + ". , ; ! " * 20) == "short_doc"
    assert verdict(step, "word " * 60) == ""
    assert verdict(step, "word " * 61) == "long_doc"


def test_mean_word_length() -> None:
    step = quality(min_word_length=3.0, max_word_length=10.0)
    assert verdict(step, "abc " * 10) == ""
    assert verdict(step, "abc " * 10 + "ab") == "below_avg_threshold"
    assert verdict(step, "abcdefghij " * 10) == ""
    assert verdict(step, "abcdefghij " * 10 + "abcdefghijk") == "above_avg_threshold"


def test_symbols_a_word() -> None:
    assert verdict(quality(hashes=0.1), "word " * 9 + "#") == ""
    assert verdict(quality(hashes=0.1), "word " * 8 + "#") == "too_many_hashes"
    assert verdict(quality(ellipses=0.1), "word " * 9 + "…") == ""
    assert verdict(quality(ellipses=0.1), "word " * 8 + "...") == "too_many_ellipsis"


def test_bullets_and_ellipses_of_lines() -> None:
    nine, step = "\n".join(["  - point"] * 9), quality(bullets=0.9)
    assert verdict(step, nine + "\nplain") == ""
    assert verdict(step, nine + "\n• point") == "too_many_bullets"
    ends = quality(end_ellipses=0.3)
    assert verdict(ends, "\n".join(["read on...  "] * 3 + ["the end."] * 7)) == ""
    assert verdict(ends, "\n".join(["read on…"] * 4 + ["the end."] * 6)) == "too_many_end_ellipsis"


def test_punctuation_counts_against_the_letters() -> None:
    step = quality(alpha=0.8)
    assert verdict(step, "a b c d 1") == ""
    assert verdict(step, "a b c d 1 2") == "below_alpha_threshold"
    assert verdict(step, "a, b, c, d") == "below_alpha_threshold"  # three of seven words are commas


def test_stop_words_are_different_ones_in_lower_case() -> None:
    step = quality(stop_words=2)
    assert verdict(step, "the cat and dog") == ""
    assert verdict(step, "the cat the dog") == "enough_stop_words"
    assert verdict(step, "The cat And the dog") == "enough_stop_words"


# C4


def cleaned(text: str, **settings_: object) -> str | None:
    """The text that C4 leaves, or None where it drops the document."""
    found = row(text)
    step = C4(C4Settings(**{"min_sentences": None, **settings_}))
    return None if first_failure(step, found) else found.text


def test_lines_that_c4_leaves_out() -> None:
    keep = "This line stays here."
    for line in ("two words", "a " * 3 + "x" * 1001, "please enable JavaScript to read", "we use cookies on this site",
                 "read our Privacy Policy before you go"):  # fmt: skip
        assert cleaned(f"{keep}\n{line}\n{keep}") == f"{keep}\n{keep}", line
    assert cleaned(f"{keep}\nx y " + "z" * 1000) == f"{keep}\nx y " + "z" * 1000


def test_documents_that_c4_drops() -> None:
    assert cleaned("Lorem Ipsum dolor sit amet.") is None
    assert cleaned("function of x is { return }") is None
    assert cleaned("function of x is { return }", curly_bracket=False) is not None


def test_a_bracket_in_a_line_that_is_left_out_already_drops_nothing() -> None:
    assert cleaned("a {\nThis line stays here.\njavascript goes in { and } here") == "This line stays here."
    assert cleaned("we use cookies in { and } here") is None  # the policy rule comes after the bracket's


def test_blank_lines_and_citations_go_and_words_are_counted_before() -> None:
    assert cleaned(" One two three.[1] \n\n\u00a0\nFour five[edit] six.[citation needed]") == (
        "One two three.\nFour five six."
    )
    assert cleaned("one two [3]") == "one two"


def test_terminal_punctuation_is_off_unless_wanted() -> None:
    text = 'It ends well.\nIt does not end\n"It ends so"\nAnd so on and...'
    assert cleaned(text) == text
    assert cleaned(text, terminal_punctuation=True) == 'It ends well.\n"It ends so"'


def test_sentences_of_the_lines_that_stay() -> None:
    assert verdict(CLEAN, "One is here. " * 5) == ""
    assert verdict(CLEAN, "One is here. " * 4) == "too_few_sentences"
    assert verdict(CLEAN, "One is here.\n" * 4 + "No. It. Is.") == ""
    assert verdict(CLEAN, "One is here.\n" * 4 + "No.\nYes.") == "too_few_sentences"


def test_a_document_that_c4_drops_keeps_its_text() -> None:
    found = row("Keep this line as it is.\n\nAnd { this one too.")
    assert first_failure(CLEAN, found) is not None
    assert found.text == "Keep this line as it is.\n\nAnd { this one too."


# FineWeb's own


def fineweb(**kept: object) -> FineWebQuality:
    return FineWebQuality(only(FineWebQualitySettings, **kept))  # type: ignore[arg-type]


def test_line_ends() -> None:
    step = fineweb(line_punct=0.12)
    assert verdict(step, "\n".join(["It ends."] * 3 + ["no end"] * 22)) == ""  # 3 of 25 is 0.12
    assert verdict(step, "\n".join(["It ends."] * 2 + ["no end"] * 22)) == "line_punct_ratio"
    assert verdict(step, "\n".join(['He said: "It ends."'] * 5)) == "line_punct_ratio"  # a quotation mark is no end
    assert verdict(step, "It ends. ") == "line_punct_ratio"  # lines are not stripped
    assert verdict(step, "好。") == ""


def test_short_lines() -> None:
    step = fineweb(short_line=0.67)
    assert verdict(step, "\n".join(["x" * 30] * 67 + ["x" * 31] * 33)) == ""
    assert verdict(step, "\n".join(["x" * 30] * 68 + ["x" * 31] * 32)) == "short_line_ratio"


def test_repeated_lines_are_measured_without_line_breaks() -> None:
    step = fineweb(char_dup=0.01)
    assert verdict(step, "\n".join(["a", "a", "x" * 98])) == ""  # 1 of 100
    assert verdict(step, "\n".join(["a", "a", "x" * 97])) == "char_dup_ratio"


def test_line_breaks_a_word() -> None:
    step = fineweb(list_ratio=0.3)
    assert verdict(step, "\n".join(["a b c d"] + ["e f"] * 3)) == ""  # 3 of 10
    assert verdict(step, "\n".join(["a b c"] + ["e f"] * 3)) == "list_ratio"


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u00a0\n\r\n"])
def test_nothing_is_empty(text: str) -> None:
    assert verdict(FINEWEB, text) == "empty"


# All of them


HARD = [
    "", " ", "\n", "\r\n" * 50, "\u00a0" * 100, "a\u00a0b " * 400, "one two three\r\n" * 60, "- a\n" * 80,
    "你好世界。" * 300, "مرحبا بالعالم. " * 100, "😀😃😄 " * 200, "e\u0301\u0301\u0301 " * 200, "x" * 5000,
    "\x00\x01 \u2028 \u0085" * 30, "\ufeff" + PROSE,
]  # fmt: skip


@pytest.mark.parametrize("step", [REPETITION, QUALITY, CLEAN, FINEWEB])
@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_hard_texts_get_a_verdict_with_every_rule_on_and_off(step: object, text: str) -> None:
    verdict(step, text)  # type: ignore[arg-type]
    group = type(step.settings)  # type: ignore[attr-defined]
    found = row(text)
    failed = first_failure(type(step)(only(group)), found)  # type: ignore[call-arg]
    assert failed is None or failed.rule in ("empty", "lorem_ipsum", "curly_bracket")


@pytest.mark.parametrize(
    "unit", ["word ", "a.a.", "a-a-", "(((", "1,1,", "don't", "it's ", "http://", "a@a.", "{", "\u00a0"]
)
def test_one_line_of_a_megabyte_takes_seconds_not_hours(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    for step in (QUALITY, CLEAN, FINEWEB):
        verdict(step, text)  # type: ignore[arg-type]
