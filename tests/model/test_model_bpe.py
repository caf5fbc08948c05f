"""Learning merges: the vocabulary of `tokenizers`' trainer, merge by merge."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from llmctl.model import bpe, tokenizer
from llmctl.model.published import gpt4_pattern
from llmctl.model.tokenizer import SPECIAL_TOKENS, train_tokenizer
from llmctl.native import bpe as native


def both(texts: list[str], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours, by the kernel and by numpy, and `tokenizers`' where `regex` is missing, are the same to the last field."""
    native.available()  # compiled, so that small texts take it too
    ours = train_tokenizer(texts, size + len(SPECIAL_TOKENS))
    monkeypatch.setattr(native, "available", lambda compile: False)
    by_numpy = train_tokenizer(texts, size + len(SPECIAL_TOKENS))
    monkeypatch.setattr(tokenizer, "find_spec", lambda name: None)
    theirs = train_tokenizer(texts, size + len(SPECIAL_TOKENS))
    monkeypatch.undo()
    assert by_numpy.spec["model"]["merges"] == theirs.spec["model"]["merges"]
    assert ours.spec["model"]["merges"] == theirs.spec["model"]["merges"]
    assert ours.spec == by_numpy.spec == theirs.spec and ours.digest == theirs.digest
    assert ours.encode(texts[0]) == theirs.encode(texts[0])


@pytest.mark.parametrize("seed", range(12))
def test_on_words_full_of_ties_and_repetitions(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few letters: runs such as aaaa, merges that are neighbours, many pairs that are equally frequent."""
    rng = random.Random(seed)
    letters = "ab" if seed % 3 == 0 else "abcé" if seed % 3 == 1 else "a1 '\n日"
    texts = ["".join(rng.choices(letters, k=rng.randint(1, 60))) for _ in range(80)]
    both(texts, 256 + rng.choice([1, 20, 90, 400]), monkeypatch)


def test_on_real_text(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both([(data / "text/tinyshakespeare.txt").read_text()[:300_000]], 2000, monkeypatch)


def test_on_many_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    ranges = [(0x20, 0x7F), (0xC0, 0x180), (0x3B1, 0x3C9), (0x410, 0x450), (0x5D0, 0x5EA), (0x905, 0x939),
              (0x4E00, 0x4E40), (0x1F600, 0x1F640), (0x2000, 0x2010), (0x660, 0x66A)]  # fmt: skip
    texts = []
    for _ in range(60):
        low, high = rng.choice(ranges)
        texts.append("".join(chr(rng.randrange(low, high)) + rng.choice(["", "", " ", "\r\n"]) for _ in range(80)))
    both(texts, 900, monkeypatch)


def test_nothing_to_learn_from() -> None:
    assert train_tokenizer([""], 300).vocab_size == 256 + len(SPECIAL_TOKENS)


def test_words_are_the_same_however_long_the_text_is(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Lines, with  spaces \n\n and\r\nends;\n\tof every 123 kind\n'll do.\n" * 40
    whole = bpe.count_words([text], gpt4_pattern(2))
    monkeypatch.setattr(bpe, "_PIECE", 50)
    assert bpe.count_words([text], gpt4_pattern(2)) == whole and len(list(bpe._pieces(text))) > 20


def test_lone_surrogates_are_no_text_and_do_no_harm() -> None:
    assert train_tokenizer(["ab \ud800 ab"], 267).encode("ab") == [256]
