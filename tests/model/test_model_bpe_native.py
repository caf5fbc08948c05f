"""The kernel that learns merges: the words of `regex`, and the merges of numpy and of `tokenizers`' trainer."""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Iterator

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from llmctl.model import bpe
from llmctl.model.published import gpt4_pattern
from llmctl.model.tokenizer import SPECIAL_TOKENS, train_tokenizer, well_formed
from llmctl.native import bpe as native

needs_kernel = pytest.mark.skipif(not native.available(), reason="no C++ compiler, or LLMCTL_NATIVE=0")
# What the pattern looks at, and its neighbours: both cases of 's and its third, numbers that are no digits, marks,
# white space of every length in UTF-8, lines that end in two ways, NUL.
TRIPPING = "aSſsdmtlLvVrReE'’é日🙂Жא1٣²Ⅷ߁𝟘 \t\x0b\x1c\x85\xa0\u2003\u2028\u3000\r\n.-_/\x00\u0301\u200d\ufffd\U0010ffff"
TEXTS = st.one_of(st.text(TRIPPING, max_size=60), st.text(max_size=40), st.text("ab", max_size=60))
DIGITS = st.integers(1, 3)
# `tokenizers` has an older Unicode than `regex`, and takes what came since for no letters.
OLD = st.text(st.characters(codec="utf-8").filter(lambda c: unicodedata.ucd_3_2_0.category(c) != "Cn"), max_size=40)
OLD_TEXTS = st.one_of(st.text(TRIPPING, max_size=60), OLD, st.text("ab", max_size=60))


def words_of(texts: list[str], digits: int) -> dict[bytes, int]:
    words = native.Words(bpe._kinds(), digits)
    for text in texts:
        words.add(text)
    return words.counts()


def by_regex(texts: list[str], digits: int) -> dict[bytes, int]:
    return {word.encode(): n for word, n in bpe.count_words(texts, gpt4_pattern(digits)).items()}


def by_tokenizers(texts: list[str], digits: int, size: int) -> list[tuple[str, str]]:
    engine = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(gpt4_pattern(digits)), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    engine.train_from_iterator(texts, trainer)
    return [tuple(pair) for pair in json.loads(engine.to_str())["model"]["merges"]]


@needs_kernel
class TestWords:
    @settings(max_examples=400, deadline=None)
    @given(st.lists(TEXTS, max_size=4), DIGITS)
    def test_of_any_text_are_those_of_regex(self, texts: list[str], digits: int) -> None:
        assert words_of(texts, digits) == by_regex(texts, digits)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=80), DIGITS)
    def test_of_random_bytes(self, data: bytes, digits: int) -> None:
        for text in (data.decode(errors="replace"), data.decode("latin-1"), data.decode("utf-16", errors="replace")):
            assert words_of([text], digits) == by_regex([text], digits)

    def test_of_every_character_behind_and_before_each_kind(self) -> None:
        every = [*range(0xD800), *range(0xE000, 0xE100), *range(0xF900, 0x1FC00), *range(0x10FF00, 0x110000)]
        text = "".join(f"{c}a {c}1{c}{c}.{c}'{c}\n" for c in map(chr, every))
        assert words_of([text], 2) == by_regex([text], 2)

    def test_of_which_there_are_many_alike(self) -> None:
        """More than a table of the first size holds; equal in their beginnings, ends and lengths."""
        rng = random.Random(0)
        text = " ".join("".join(rng.choices("ab", k=rng.randint(1, 40))) for _ in range(20_000))
        found = words_of([text, "\x00" * 9, "\x00" * 3], 1)
        assert found == by_regex([text, "\x00" * 9, "\x00" * 3], 1) and len(found) > 5_000

    def test_that_are_no_text_are_not_counted(self) -> None:
        words = native.Words(bpe._kinds(), 1)
        with pytest.raises(UnicodeEncodeError):
            words.add("ab \ud800")
        assert words.counts() == {}


@needs_kernel
class TestMerges:
    @settings(max_examples=150, deadline=None)
    @given(st.lists(OLD_TEXTS, min_size=1, max_size=8), st.integers(256, 340), DIGITS)
    def test_three_ways_are_one(self, texts: list[str], size: int, digits: int) -> None:
        found = bpe.learn(texts, digits, size)
        assert found == bpe.learn_merges(bpe.count_words(texts, gpt4_pattern(digits)), size)
        assert found[1] == by_tokenizers(texts, digits, size)

    @pytest.mark.parametrize("length", [2, 3, 7, 8, 100_001])
    def test_of_one_long_run(self, length: int) -> None:
        found = bpe.learn(["a" * length], 1, 1000)
        assert found == bpe.learn_merges(bpe.count_words(["a" * length], gpt4_pattern(1)), 1000)

    def test_end_where_nothing_is_left_to_merge(self) -> None:
        vocab, merges = bpe.learn(["one two three two one"], 1, 100_000)
        assert len(vocab) == 256 + len(merges) and " three".replace(" ", "Ġ") in vocab

    @pytest.mark.parametrize("texts", [[], [""], ["", ""], ["a"]])
    def test_of_nothing(self, texts: list[str]) -> None:
        vocab, merges = bpe.learn(texts, 1, 300)
        assert len(vocab) == 256 and merges == []

    def test_of_surrogates_that_json_brings(self) -> None:
        texts = ["x\ud83d\ude42 y\udc00", "x🙂 y�"]
        assert train_tokenizer(texts, 275).spec == train_tokenizer(list(map(well_formed, texts)), 275).spec


class TestWhichWay:
    @pytest.mark.parametrize("characters, compiled", [(90, False), (100, True), (250, True)])
    def test_only_a_text_worth_it_is_compiled_for(
        self, characters: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[bool] = []
        monkeypatch.setattr(bpe, "_WORTH", 100)
        monkeypatch.setattr(native, "available", lambda compile: asked.append(compile) or False)
        texts = ["ten letter"] * (characters // 10)
        assert bpe.learn(iter(texts), 1, 270) == bpe.learn_merges(bpe.count_words(texts, gpt4_pattern(1)), 270)
        assert asked == [compiled]

    def test_texts_are_read_one_by_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Beyond the first ones, none is read before the one before it is counted."""
        monkeypatch.setattr(bpe, "_WORTH", 1)
        counted: list[str] = []
        read: list[int] = []
        monkeypatch.setattr(bpe, "_pieces", lambda text: counted.append(text) or [text])

        def texts() -> Iterator[str]:
            for i in range(5):
                read.append(len(counted))
                yield f"text {i}"

        bpe.learn(texts(), 1, 300)
        assert read == [0, 1, 2, 3, 4]

    def test_the_size_counts_special_tokens(self) -> None:
        assert train_tokenizer(["ab ab ab"], 267).vocab_size == 257 + len(SPECIAL_TOKENS)
