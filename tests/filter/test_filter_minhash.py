"""Signatures against datatrove's printed values; partitions against all pairs."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from filter_helpers import PROSE, corpus_of, table, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.filter.clusters import Clusters, equal_pairs
from llmctl.filter.config import MinHashSettings
from llmctl.filter.minhash import MinHasher, shingles, simplify
from llmctl.filter.words import words
from llmctl.workspace import Workspace

HASHER = MinHasher(MinHashSettings())
GOLDEN = "The quick brown fox jumps over the lazy dog, 3.14 times in 2024. Café déjà vu!"
ALL_OFF = {
    step: {"enabled": False}
    for step in ("language", "gopher_repetition", "gopher_quality", "c4", "fineweb_quality", "pii")
}


def test_the_functions_and_the_signature_are_datatroves() -> None:
    assert HASHER.a[0, :3].tolist() == [775169054918279404, 1758426461858698313, 2109959069025162]
    assert HASHER.b[0, :3].tolist() == [1062448801025099917, 1324811268927594100, 1217488311597731462]
    assert simplify(GOLDEN) == "the quick brown fox jumps over the lazy dog 0 times in 0 cafe deja vu"
    found = shingles(simplify(GOLDEN), 5)
    assert len(found) == 12 and found[:2].tolist() == [12313522834835307089, 13802602654544986703]
    signature = HASHER.signature(GOLDEN)
    assert signature is not None and signature.shape == (14, 8)
    assert signature[0].tolist() == [
        74862590271678969, 276445938039553087, 289621937212563926, 226360113463360020,
        42312182183823545, 295150809832830541, 316606424307206655, 18342905247195216,
    ]  # fmt: skip


def test_a_long_text_is_hashed_in_pieces_and_a_short_one_not_at_all() -> None:
    text = " ".join(f"w{i}" for i in range(10_000))
    found = shingles(simplify(text), 5)
    assert len(found) == 9996
    whole = ((found[:, None] * HASHER.a + HASHER.b) % np.uint64((1 << 61) - 1)).min(axis=0)
    signature = HASHER.signature(text)
    assert signature is not None and (signature.ravel() == whole).all()
    assert HASHER.signature("one two three four") is None
    assert HASHER.signature("one two three four five") is not None


@pytest.mark.parametrize(
    ("text", "simple"),
    [("", ""), (" \n", ""), ("A\u00a0B", "a b"), ("1,000.5", "0 0"), ("٣٫١٤", "0"), ("İstanbul", "istanbul"),
     ("e\u0301", "e"), ("don't", "don t"), ("—«»", "")],
)  # fmt: skip
def test_simplify(text: str, simple: str) -> None:
    assert simplify(text) == simple


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_equal_pairs_connect_equal_rows_and_nothing_else(values: list[int], width: int) -> None:
    keys = np.array([[v] * width for v in values], dtype="<u8").reshape(-1, width)
    clusters = Clusters(len(values))
    for i, j in equal_pairs(keys):
        assert i < j and values[i] == values[j]
        clusters.link(j, i)
    assert [clusters.first(i) for i in range(len(values))] == [values.index(v) for v in values]


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60), st.randoms())
@settings(max_examples=100, deadline=None)
def test_clusters_do_not_depend_on_the_order_of_links(
    size: int, links: list[tuple[int, int]], random_: random.Random
) -> None:
    links = [(i % size, j % size) for i, j in links]
    found = []
    for _ in range(2):
        clusters = Clusters(size)
        for i, j in links:
            clusters.link(i, j)
        found.append([clusters.first(i) for i in range(size)])
        random_.shuffle(links)
    assert found[0] == found[1] and all(first <= i for i, first in enumerate(found[0]))


def near_copies(texts: list[str], seed: int = 0) -> list[str]:
    """The texts, each with copies in which ever more words are replaced; shuffled."""
    chance = random.Random(seed)
    found = list(texts)
    for text in texts:
        for share in (0.0, 0.01, 0.03, 0.1):
            parts = text.split()
            found.append(" ".join("replaced" if chance.random() < share else w for w in parts))
    chance.shuffle(found)
    return found


def brute_force(texts: list[str]) -> list[int]:
    """For each text the first of its cluster: all pairs compared bucket by bucket, links followed to the end."""
    signatures = [HASHER.signature(text) for text in texts]
    first = list(range(len(texts)))
    changed = True
    while changed:
        changed = False
        for i, j in itertools.combinations(range(len(texts)), 2):
            a, b = signatures[i], signatures[j]
            if a is None or b is None or not (a == b).all(axis=1).any():
                continue
            low = min(first[i], first[j])
            if (first[i], first[j]) != (low, low):
                first[i] = first[j] = low
                changed = True
    return first


def test_the_corpus_keeps_the_first_of_each_cluster(data: Path, tmp_path: Path, workspace: Workspace) -> None:
    with gzip.open(data / "text" / "c4_demo.jsonl.gz", "rt", encoding="utf-8") as f:
        real = [json.loads(line)["text"] for line in itertools.islice(f, 25)]
    texts = near_copies(real)
    first = brute_force(texts)
    clusters = len(set(first))
    assert 25 <= clusters < len(texts) * 2 // 3  # the copies with few changes are found

    source = write_jsonl(tmp_path / "pages.jsonl", texts)
    made = corpus_of(source, workspace, exact={"enabled": False}, workers=1, **ALL_OFF)
    assert [r["id"] for r in table(made)] == [f"d{i}" for i, root in enumerate(first) if i == root]
    dropped = {r["id"]: r for r in table(made, "dropped")}
    for i, root in enumerate(first):
        if i != root:
            assert dropped[f"d{i}"]["rule"] == "minhash.duplicate" and dropped[f"d{i}"]["detail"] == f"d{root}"
            assert 0 < dropped[f"d{i}"]["value"] <= 1
            assert dropped[f"d{i}"]["text"] == texts[i]


def test_exact_duplicates_keep_the_first_and_say_of_whom(tmp_path: Path, workspace: Workspace) -> None:
    texts = ["same text", PROSE, "same text", "Same text", PROSE, "same text"]
    source = write_jsonl(tmp_path / "pages.jsonl", texts)
    made = corpus_of(source, workspace, workers=1, **ALL_OFF)
    assert [r["id"] for r in table(made)] == ["d0", "d1", "d3"]
    rows = [(r["id"], r["rule"], r["value"], r["detail"]) for r in table(made, "dropped")]
    assert rows == [
        ("d2", "exact.duplicate", 1.0, "d0"),
        ("d4", "exact.duplicate", 1.0, "d1"),
        ("d5", "exact.duplicate", 1.0, "d0"),
    ]


def test_short_texts_are_left_to_the_exact_step(tmp_path: Path, workspace: Workspace) -> None:
    texts = ["one two three", "one two three", "one two three four five", "One two three: four five!"]
    source = write_jsonl(tmp_path / "pages.jsonl", texts)
    made = corpus_of(source, workspace, exact={"enabled": False}, workers=1, **ALL_OFF)
    assert [r["id"] for r in table(made)] == ["d0", "d1", "d2"]
    assert len(words("One two three: four five!")) == 7  # the signature is of the simplified text
