"""The split: by the text alone, copies together, and always something on both sides."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.errors import UserError
from llmctl.tokenize.split import plan_split

corpora = st.lists(st.text(min_size=2, max_size=60), min_size=1, max_size=12)


def parted(texts: list[str], fraction: float = 0.1, seed: int = 0) -> dict[str, list[str]]:
    split = plan_split(texts, fraction, seed)
    return {side: list(split.only(side, texts)) for side in ("train", "val")}


@given(corpora, st.floats(0.001, 0.5), st.integers(-5, 5))
@settings(max_examples=200, deadline=None)
def test_both_sides_have_text_and_nothing_is_lost(texts: list[str], fraction: float, seed: int) -> None:
    split = plan_split(texts, fraction, seed)
    assert all("".join(piece for _, piece in split.part(t)) == t for t in texts)
    sides = parted(texts, fraction, seed)
    assert sides["train"] and sides["val"]


@given(corpora)
def test_copies_of_a_text_are_never_on_both_sides(texts: list[str]) -> None:
    split = plan_split([*texts, *texts], 0.3, 0)
    if split.cut is None:
        sides = parted([*texts, *texts], 0.3)
        assert not set(sides["train"]) & set(sides["val"])


def test_neither_order_nor_company_changes_a_side() -> None:
    texts = [f"document {n}" for n in range(300)]
    sides, backwards, fewer = parted(texts), parted(texts[::-1]), parted(texts[::2])
    assert sides["val"] == backwards["val"][::-1]
    assert set(fewer["val"]) <= set(sides["val"])
    assert 10 < len(sides["val"]) < 60
    assert parted(texts, seed=1)["val"] != sides["val"]


def test_one_document_gives_its_tail_cut_at_a_line() -> None:
    text = "".join(f"line {n} of a single document\n" for n in range(1000))
    sides = parted([text], 0.1)
    assert len(sides["train"]) == len(sides["val"]) == 1
    assert text == sides["train"][0] + sides["val"][0]
    assert 0.09 * len(text) < len(sides["val"][0]) <= 0.1 * len(text)
    assert sides["val"][0].startswith("line ")


def test_a_large_corpus_is_not_read_to_its_end() -> None:
    seen = 0

    def endless():
        nonlocal seen
        while True:
            seen += 1
            yield f"document {seen}"

    plan_split(endless(), 0.02, 0)
    assert seen < 2000


def test_a_corpus_without_text_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match="no text"):
        plan_split([], 0.1, 0)
