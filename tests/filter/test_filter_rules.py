"""Each rule by hand, on both sides of its threshold, and all of them against datatrove's."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from filter_helpers import PROSE

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
from llmctl.filter.gopher_repetition import (
    GopherRepetition,
    duplicates,
    lines,
    paragraphs,
    repeated_ngrams,
    top_ngrams,
)
from llmctl.filter.row import Row, Scorer
from llmctl.filter.words import numbered, words
from llmctl.formats.document import Document

REPETITION = GopherRepetition(GopherRepetitionSettings())
QUALITY = GopherQuality(GopherQualitySettings())
CLEAN = C4(C4Settings())
FINEWEB = FineWebQuality(FineWebQualitySettings())
ALL = [REPETITION, QUALITY, CLEAN, FINEWEB]


def row(text: str) -> Row:
    return Row(Document(id="x", text=text))


def first(step: Scorer, of: Row) -> str:
    """The first rule of a step that drops a row, or ""."""
    values = step(of)
    assert len(values) == len(step.rules)
    return next((r.name for r, v in zip(step.rules, values, strict=True) if r.fails(np.array([v], float))[0]), "")


def verdict(step: Scorer, text: str) -> str:
    return first(step, row(text))


def measured(step: Scorer, text: str) -> dict[str, float]:
    return {rule.name: value for rule, value in zip(step.rules, step(row(text)), strict=True)}


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


@pytest.mark.parametrize("step", ALL, ids=lambda step: step.name)
def test_prose_passes(step: Scorer) -> None:
    assert verdict(step, PROSE) == ""


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
    assert top_ngrams(numbered("ab c ab c")) == [8, 7, 9]  # "ab c" twice; then all once, and the first counts
    assert top_ngrams(numbered("aaa b c")) == [5, 7, 0]
    assert top_ngrams(numbered("aa bb xxx yyy aa bb xxx yyy")) == [10, 18, 26]
    assert top_ngrams(numbered("only")) == top_ngrams(numbered("")) == [0, 0, 0]


def test_repeated_ngrams_do_not_overlap() -> None:
    assert repeated_ngrams(numbered("abc de f ghi j " * 3), [5]) == [20]
    # A repeat may overlap the first occurrence, not another repeat.
    assert repeated_ngrams(numbered("q " * 6), [5]) == [5]
    assert repeated_ngrams(numbered("q " * 11), [5]) == [10]
    assert repeated_ngrams(numbered(""), [5]) == [0]


def test_repeated_ngrams_are_equal_where_their_characters_are() -> None:
    assert repeated_ngrams(numbered("cannot go on like this or can-not go on like this"), [3])[0] > 0
    apart, joined = "we have seen it my self now", "we have seen it myself now too"
    assert repeated_ngrams(numbered(f"{apart} . {joined}"), [6]) == [0]
    assert repeated_ngrams(numbered("x y zz . xy z z"), [3]) == [4]
    assert repeated_ngrams(numbered("a b c\0 d a b c d"), [4]) == [0]  # NUL is a character


@given(st.lists(st.sampled_from(["a", "b", "ab", "don't", "c.", "x" * 70, "好", "\0"]), max_size=60), st.integers(0, 9))
@settings(max_examples=300, deadline=None)
def test_ngrams_against_the_definition(chunks: list[str], often: int) -> None:
    text = " ".join(chunks + chunks[:often])
    found = words(text)
    expected = []
    for n in (2, 3, 4):
        grams = Counter(" ".join(found[at : at + n]) for at in range(len(found) - n + 1))
        expected.append(len(grams.most_common(1)[0][0]) * grams.most_common(1)[0][1] if grams else 0)
    assert top_ngrams(numbered(text)) == expected
    for n, measured_ in zip(range(5, 11), repeated_ngrams(numbered(text)), strict=True):
        seen, characters_, at = set(), 0, 0
        while at < len(found) - n + 1:
            gram = "".join(found[at : at + n])
            if gram in seen:
                characters_, at = characters_ + len(gram), at + n
            else:
                seen.add(gram)
                at += 1
        assert measured_ == characters_


@given(st.text(alphabet="ab \n\r\u2028", max_size=40))
@settings(max_examples=300, deadline=None)
def test_paragraphs_and_lines_are_cut_as_the_expressions_say(text: str) -> None:
    assert paragraphs(text) == re.split(r"\n{2,}", text.strip())
    assert lines(text) == re.split(r"\n+", text)


def test_the_order_of_the_repetition_rules() -> None:
    assert [rule.name for rule in REPETITION.rules] == [
        "empty", "dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac", "top_2_gram",
        "top_3_gram", "top_4_gram", *(f"duplicated_{n}_n_grams" for n in range(5, 11)),
    ]  # fmt: skip
    values = measured(REPETITION, "")
    assert values.pop("empty") == 1 and all(map(math.isnan, values.values()))
    assert verdict(REPETITION, "") == "empty" and measured(REPETITION, "a")["empty"] == 0


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


def test_letters_can_be_asked_of_what_stands_between_white_space() -> None:
    step = quality(alpha=0.8, words="whitespace")
    assert verdict(step, "a, b, c, d") == ""
    assert verdict(step, "a, b, c, d 1") == ""
    assert verdict(step, "a, b, c, d 1 (2)") == "below_alpha_threshold"
    # The other rules count as before.
    assert measured(step, "a, b, c, d")["below_avg_threshold"] == 1


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
    dropped = first(step, found)
    assert found.text == step.clean(text)
    return None if dropped else found.text


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


def test_a_document_that_c4_drops_is_cleaned_too() -> None:
    found = row("Keep this line as it is.\n\nAnd { this one too.\ntwo words")
    assert first(CLEAN, found) == "curly_bracket" and found.details == {"curly_bracket": "line 3"}
    assert found.text == "Keep this line as it is.\nAnd { this one too."


def test_the_first_of_filler_text_and_bracket_is_the_reason() -> None:
    filler, bracket = "here is lorem ipsum again", "here is a { again"
    for text, rule, line in (
        (f"{filler}\n{bracket}", "lorem_ipsum", 1),
        (f"\n{bracket}\n{filler}", "curly_bracket", 2),
        (f"{bracket} {filler}", "lorem_ipsum", 1),
    ):
        found = row(text)
        assert first(CLEAN, found) == rule and found.details == {rule: f"line {line}"}
    # What is switched off hides nothing.
    assert cleaned(f"{filler}\n{bracket}", lorem_ipsum=False) is None
    assert cleaned(f"{bracket}\n{filler}", curly_bracket=False) is None
    assert cleaned(f"{bracket}\n{filler}", curly_bracket=False, lorem_ipsum=False) is not None


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


@pytest.mark.parametrize("step", ALL, ids=lambda step: step.name)
@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_hard_texts_are_measured_and_kept_where_every_rule_is_off(step: Scorer, text: str) -> None:
    assert all(value >= 0 or math.isnan(value) for value in step(row(text)))
    group = type(step.settings)  # type: ignore[attr-defined]
    off = {"lorem_ipsum": False, "curly_bracket": False} if step is CLEAN else {}
    assert first(type(step)(only(group, **off)), row(text)) in ("", "empty")  # type: ignore[call-arg]


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["word ", "a.a.", "a-a-", "(((", "1,1,", "don't", "it's ", "http://", "a@a.", "{", "\u00a0", "a:@", ".x"]
)
def test_one_line_of_a_megabyte_takes_seconds_not_hours(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    for step in ALL:
        verdict(step, text)


# datatrove's filters, in the same order and with the same settings.
BREAKS = ("\r\n", "\n\n", "\n \n", "\x0b", "\u2028", "\x85")
ADVERSARIAL = [
    *HARD, PROSE, PROSE + "\n\n\n", "\n\n" + PROSE, PROSE.replace(" ", "\u00a0"), PROSE.replace(" ", "  "),
    PROSE.replace(" ", ""), *(PROSE.replace("\n", gap) for gap in BREAKS), PROSE.replace(". ", ".  "),
    PROSE.replace(".", ".[1]  "), PROSE.replace("the", "x:) )"), PROSE.replace(",", " ..."),
    PROSE.replace("the", "Lorem Ipsum", 1), PROSE.replace("heavy", "{"), PROSE + "\n" + PROSE, PROSE + "\n\n" + PROSE,
    PROSE.replace("e", "e\u0301"), PROSE.replace("a", "😀"), PROSE + " java[1]script",
    "- " + PROSE.replace("\n", "\n- "),
    PROSE.replace("rain", "r" + "a" * 1001 + "in"), PROSE.replace("the ", "# the "), PROSE.replace("\n", "…\n"),
    "One is here. " * 4, "privacy policy for all\n" + PROSE, "Über Straße ﬁn İstanbul ΑΣ lorem ipsum", "a b c\n" * 90,
    "\n".join(f"{i} of the many things that he had to say." for i in range(60)), "word " * 49,
    "be to of and that " * 20,
]  # fmt: skip


def against_datatrove(texts: list[str]) -> None:
    filters = pytest.importorskip("datatrove.pipeline.filters")
    data = pytest.importorskip("datatrove.data")
    pytest.importorskip("spacy")
    theirs = [
        filters.GopherRepetitionFilter(),
        filters.GopherQualityFilter(),
        filters.C4QualityFilter(filter_no_terminal_punct=False),
        filters.FineWebQualityFilter(),
    ]
    for text in texts:
        mine = row(text)
        for reference, step in zip(theirs, ALL, strict=True):
            document = data.Document(text=mine.body, id="x")
            expected = reference.filter(document)
            # Every step on every text, dropped before or not; the text is rewritten as for a kept one.
            reason = "" if expected is True else expected[1].removeprefix("gopher_")
            assert first(step, mine) == reason, (step.name, text[:200])
            assert expected is not True or mine.text == document.text


@pytest.mark.parametrize("text", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_hard_texts_get_datatroves_verdict(text: str) -> None:
    against_datatrove([text])


@given(st.lists(st.sampled_from([*PROSE.split(), "\n", "\n\n", "\u00a0", "  ", "...", "{", "[1]", "- a", "x:)", "。"]),
                min_size=30, max_size=200), st.integers(1, 4))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_shuffled_texts_get_datatroves_verdict(parts: list[str], times: int) -> None:
    against_datatrove([" ".join(parts * times)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["text/c4_demo.jsonl.gz", "lang/udhr.jsonl.gz", "text/arxiv_redpajama_sample.jsonl.gz"]
)
def test_real_texts_get_datatroves_verdict(data: Path, name: str) -> None:
    with gzip.open(data / name, "rt", encoding="utf-8", newline="\n") as file:
        texts = [max(map(str, json.loads(line).values()), key=len)[:20_000] for line in file][::3]
    against_datatrove(texts)
