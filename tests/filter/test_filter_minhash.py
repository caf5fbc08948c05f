"""Signatures against datatrove's printed values; partitions against all pairs."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmctl.filter.bands import Bands, band_keys, equal
from llmctl.filter.clusters import Clusters
from llmctl.filter.config import FilterConfig, MinHashSettings
from llmctl.filter.duplicates import Removal, find_duplicates
from llmctl.filter.exact import digest
from llmctl.filter.minhash import MinHasher, remainder, shingles
from llmctl.filter.minhash_sha1 import sha1_prefixes
from llmctl.filter.minhash_text import simplify
from llmctl.filter.words import words

HASHER = MinHasher(MinHashSettings())
PRIME = (1 << 61) - 1
GOLDEN = "The quick brown fox jumps over the lazy dog, 3.14 times in 2024. Café déjà vu!"


def test_the_functions_and_the_signature_are_datatroves() -> None:
    assert HASHER.a[:3].tolist() == [775169054918279404, 1758426461858698313, 2109959069025162]
    assert HASHER.b[:3].tolist() == [1062448801025099917, 1324811268927594100, 1217488311597731462]
    assert simplify(GOLDEN) == "the quick brown fox jumps over the lazy dog 0 times in 0 cafe deja vu"
    found, runs = shingles([simplify(GOLDEN)], 5)
    assert runs.tolist() == [12]
    assert len(found) == 12 and found[:2].tolist() == [12313522834835307089, 13802602654544986703]
    signature = HASHER.signature(GOLDEN)
    assert signature is not None and signature.shape == (14, 8)
    assert signature[0].tolist() == [
        74862590271678969, 276445938039553087, 289621937212563926, 226360113463360020,
        42312182183823545, 295150809832830541, 316606424307206655, 18342905247195216,
    ]  # fmt: skip


def test_a_long_text_is_hashed_in_pieces_and_a_short_one_not_at_all() -> None:
    text = " ".join(f"w{i}" for i in range(10_000))
    found, runs = shingles([simplify(text)], 5)
    assert runs.tolist() == [9996]
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


def save_shards(folder: Path, signatures: list[np.ndarray | None], digests: list[int], size: int) -> list[Path]:
    """Screened shards of `size` documents each, as the first pass leaves them; ids are s<shard>-<row>."""
    shards = []
    for number, at in enumerate(range(0, len(digests), size)):
        shard, here = folder / f"{number:05d}", signatures[at : at + size]
        shard.mkdir(parents=True)
        signed = [row for row, signature in enumerate(here) if signature is not None]
        made = np.array([here[row] for row in signed], dtype="<u8").reshape(len(signed), 14, 8)
        np.save(shard / "signatures.npy", made)
        np.save(shard / "signed_rows.npy", np.array(signed, dtype="<i8"))
        np.save(shard / "digests.npy", np.array([[d, d] for d in digests[at : at + size]], dtype="<u8").reshape(-1, 2))
        pq.write_table(pa.table({"id": [f"s{number}-{row}" for row in range(len(here))]}), shard / "kept.parquet")
        shards.append(shard)
    return shards


def firsts(shards: list[Path], scratch: Path, memory: int = 1 << 28, **settings: Any) -> list[str]:
    """For each document the id of the one that stays in its place: itself or another."""
    config = FilterConfig.model_validate({"pages": "x", **settings})
    removed = find_duplicates(shards, config, scratch, memory)
    found = []
    for number, (shard, gone) in enumerate(zip(shards, removed, strict=True)):
        stays = {removal.row: removal.stays for removal in gone}
        assert [removal.row for removal in gone] == sorted(stays)
        found += [stays.get(row, f"s{number}-{row}") for row in range(len(np.load(shard / "digests.npy")))]
    return found


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
@settings(max_examples=200, deadline=None)
def test_links_connect_equal_keys_and_nothing_else(values: list[tuple[int, int]]) -> None:
    """Also where the first word of the key is the same and only the second tells them apart."""
    keys = np.array(values, dtype=np.uint64).reshape(-1, 2)
    clusters = Clusters(len(values))
    leaders, members = equal(keys, np.arange(len(values)))
    assert all(values[i] == values[j] and i != j for i, j in zip(leaders, members, strict=True))
    clusters.link(leaders, members)
    assert clusters.firsts().tolist() == [values.index(v) for v in values]


def first_by_search(size: int, links: list[tuple[int, int]]) -> list[int]:
    """The smallest document that each one can be reached from."""
    first = list(range(size))
    for _ in range(size):
        for i, j in links:
            first[i] = first[j] = min(first[i], first[j])
    return first


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60), st.data())
@settings(max_examples=200, deadline=None)
def test_clusters_do_not_depend_on_the_order_of_links(
    size: int, links: list[tuple[int, int]], data: st.DataObject
) -> None:
    links = [(i % size, j % size) for i, j in links]
    expected = first_by_search(size, links)
    shuffled = data.draw(st.permutations(links))
    cut = data.draw(st.integers(0, len(links)))
    clusters = Clusters(size)
    for part in (shuffled[:cut], shuffled[cut:]):
        pairs = np.array(part, dtype=np.int64).reshape(-1, 2)
        clusters.link(pairs[:, 0], pairs[:, 1])
    assert clusters.first(np.arange(size)).tolist() == expected
    assert clusters.firsts().tolist() == expected


def test_a_long_chain_is_one_cluster() -> None:
    order = np.random.RandomState(0).permutation(100_000)
    clusters = Clusters(100_000)
    clusters.link(order[1:], order[:-1])
    assert not clusters.firsts().any()


def test_bands_give_the_same_links_however_they_are_divided(tmp_path: Path) -> None:
    chance = np.random.RandomState(0)
    values = chance.randint(0, 700, size=(2000, 3, 1)).astype(np.uint64)
    keys = np.concatenate([values * np.uint64(0x9E3779B97F4A7C15), values], axis=2)
    found = []
    for number, memory in enumerate((1 << 28, 1 << 16, 1 << 12)):
        bands = Bands(tmp_path / str(number), 3, 2000, memory)
        clusters = Clusters(2000)
        for at in range(0, 2000, 300):
            bands.add(keys[at : at + 300], np.arange(at, min(at + 300, 2000)))
        links = 0
        for leaders, members in bands.links():
            links += len(leaders)
            clusters.link(leaders, members)
        assert links == sum(2000 - len(np.unique(values[:, band])) for band in range(3))
        assert not bands.folder.exists() and (bands.partitions > 1) == (number > 0)
        found.append(clusters.firsts().tolist())
    assert found[0] == found[1] == found[2]


def test_band_keys_are_equal_exactly_where_all_hashes_are() -> None:
    chance = np.random.RandomState(0)
    one = chance.randint(0, 1 << 61, size=(1, 14, 8), dtype=np.uint64)
    changed = np.repeat(one, 61 * 8, axis=0)
    for i in range(8):
        for bit in range(61):
            changed[i * 61 + bit, 5, i] ^= np.uint64(1 << bit)
    keys = band_keys(np.concatenate([one, one, changed]))
    assert (keys[0] == keys[1]).all()
    assert len(np.unique(keys[1:, 5], axis=0)) == 61 * 8 + 1  # every single bit counts
    assert (np.delete(keys, 5, axis=1) == np.delete(keys[:1], 5, axis=1)).all()


@pytest.mark.parametrize("similarity", [0.6, 0.72, 0.8, 0.9])
def test_pairs_are_found_as_often_as_the_theory_says(similarity: float, tmp_path: Path) -> None:
    """1-(1-s^8)^14, for pairs of sets of 1000 shingles with that Jaccard similarity."""
    pairs, chance = 300, np.random.RandomState(1)
    shared = round(2000 * similarity / (1 + similarity))
    similarity = shared / (2000 - shared)
    made: list[np.ndarray] = []
    for _ in range(pairs):
        shingles_ = chance.randint(0, 1 << 64, size=2000 - shared, dtype=np.uint64)
        both = np.concatenate([shingles_[:1000], shingles_[-1000:]])
        made += list(HASHER.smallest(both, np.array([1000, 1000])))
    shards = save_shards(tmp_path / "shards", list(made), list(range(2 * pairs)), 100)
    config = FilterConfig(pages="x")
    removed = [removal for shard in find_duplicates(shards, config, tmp_path / "scratch") for removal in shard]
    expected = 1 - (1 - similarity**8) ** 14
    assert abs(len(removed) / pairs - expected) < 4 * (expected * (1 - expected) / pairs) ** 0.5 + 1 / pairs
    estimates = [(a == b).mean() for a, b in zip(made[::2], made[1::2], strict=True)]
    assert abs(np.mean(estimates) - similarity) < 4 * (similarity * (1 - similarity) / 112 / pairs) ** 0.5


def test_removals_do_not_depend_on_partitions_and_shards(tmp_path: Path) -> None:
    chance = np.random.RandomState(2)
    heads = chance.randint(0, 1 << 61, size=(60, 14, 8), dtype=np.uint64)
    signatures: list[np.ndarray | None] = []
    for _ in range(600):
        made = heads[chance.randint(60)].copy()
        made[chance.random_sample((14, 8)) < 0.15] = chance.randint(1 << 61)
        signatures.append(made if chance.random_sample() < 0.9 else None)
    digests = chance.randint(0, 400, size=600).tolist()
    found = []
    for number, (size, memory) in enumerate([(600, 1 << 28), (600, 1 << 12), (7, 1 << 14), (128, 1 << 13)]):
        shards = save_shards(tmp_path / f"shards{number}", signatures, digests, size)
        stays = firsts(shards, tmp_path / f"scratch{number}", memory)
        numbers = [s.split("-") for s in stays]
        found.append([int(shard[1:]) * size + int(row) for shard, row in numbers])
    assert found[0] == found[1] == found[2] == found[3]
    assert 60 <= len(set(found[0])) < 400 and all(first <= i for i, first in enumerate(found[0]))


def test_figures_and_cluster_sizes_are_of_the_clusters(tmp_path: Path) -> None:
    signature = np.arange(112, dtype=np.uint64).reshape(14, 8)
    other = signature + np.uint64(1000)
    near = signature.copy()
    near[1:] += np.uint64(5000)  # one bucket of 14 agrees
    shards = save_shards(
        tmp_path, [signature, other, near, None, signature, other, signature], [1, 2, 3, 4, 5, 2, 7], 3
    )
    removed = find_duplicates(shards, FilterConfig(pages="x"), tmp_path / "scratch")
    assert removed.figures == {
        "exact": {"removed": 1, "clusters": 1, "largest": 2},
        "minhash": {"removed": 3, "clusters": 1, "largest": 4},
    }
    assert len(removed) == 3 and removed[-1] == removed[2] and removed[0:2] == [removed[0], removed[1]]
    assert removed[0] == [Removal(2, "minhash", 1 / 14, "s0-0", 4)]
    assert removed[1] == [Removal(1, "minhash", 1.0, "s0-0", 4), Removal(2, "exact", 1.0, "s0-1", 2)]
    assert removed[2] == [Removal(0, "minhash", 1.0, "s0-0", 4)]
    with pytest.raises(IndexError):
        removed[3]
    again = find_duplicates(shards, FilterConfig(pages="x", minhash={"enabled": False}), tmp_path / "scratch")
    assert [len(rows) for rows in again] == [0, 1, 0] and list(again.figures) == ["exact"]


def test_an_empty_corpus_has_no_duplicates(tmp_path: Path) -> None:
    shards = save_shards(tmp_path, [None], [1], 1)
    for name in ("signatures.npy", "signed_rows.npy", "digests.npy"):
        np.save(shards[0] / name, np.load(shards[0] / name)[:0])
    assert list(find_duplicates(shards, FilterConfig(pages="x"), tmp_path / "scratch")) == [[]]


def real_texts(data: Path, count: int) -> list[str]:
    with gzip.open(data / "text" / "c4_demo.jsonl.gz", "rt", encoding="utf-8") as f:
        return [json.loads(line)["text"] for line in itertools.islice(f, count)]


ODD = [
    *("", " \n", "a b c d", "a b c d e", "don't  stop—now \u2028 or \u00a0 ever", "日本語 の 文章 です 。 はい"),
    *("İstanbul ΣΑΣ ﬁve naïve e\u0301tude \u0301 alone", "한국어 텍스트 입니다 다섯 여섯 일곱", "😀 " * 9),
    *("1,000.5 ٣٫١٤ x y z w", "\u037e \u1fef \u0340 a b c d e", "w" * 300 + " one two three four five six"),
    "x" * 30 + " " + " ".join(["y" * 29] * 9),
]


def test_signatures_are_datatroves(data: Path, tmp_path: Path) -> None:
    """datatrove's own code, with the same words: whether those are spaCy's is tested elsewhere."""
    peer = datatrove_signatures(tmp_path)
    peer.word_tokenizer = SameWords()
    texts = [*ODD, *real_texts(data, 60), " ".join(real_texts(data, 40))]
    for text, signature in zip(texts, HASHER.signatures(texts), strict=True):
        found = peer.get_shingles(text)
        if found.size:
            assert signature is not None and signature.tolist() == peer.get_signature(found)
        else:
            assert signature is None
        assert np.array_equal(np.array(HASHER.signature(text)), np.array(signature))


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_simplify_is_datatroves(text: str) -> None:
    peer = pytest.importorskip("datatrove.utils.text")
    assume(all(unicodedata.category(c) not in ("Cs", "Cn") for c in text))  # its digits are of a newer Unicode
    assert simplify(text) == peer.simplify_text(text)


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=30), st.sampled_from([1, 100]))
@settings(max_examples=100, deadline=None)
def test_many_digests_at_once_are_hashlibs(pieces: list[bytes], times: int) -> None:
    pieces = pieces * times  # few are hashed one by one, many together
    ends = np.cumsum([len(piece) for piece in pieces])
    starts = ends - [len(piece) for piece in pieces]
    expected = [int.from_bytes(hashlib.sha1(piece).digest()[:8], "little") for piece in pieces]
    assert sha1_prefixes(b"".join(pieces), starts, ends).tolist() == expected


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_the_remainder_without_division(values: list[int]) -> None:
    edges = [k * PRIME + d for k in range(9) for d in range(-2, 3) if 0 <= k * PRIME + d < 1 << 64]
    for some in (values, *([edge] for edge in edges), edges, [*values, PRIME]):
        assert remainder(np.array(some, dtype=np.uint64)).tolist() == [value % PRIME for value in some]


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


class SameWords:
    """Our words under the name that datatrove calls."""

    def word_tokenize(self, text: str) -> list[str]:
        return list(words(text))


def datatrove_signatures(folder: Path) -> Any:
    """The first of its stages, as FineWeb configures it."""
    minhash = pytest.importorskip("datatrove.pipeline.dedup.minhash")
    hashing = pytest.importorskip("datatrove.utils.hashing")
    config = minhash.MinhashConfig(hash_config=hashing.HashConfig(hash_fc="sha1", precision=64))
    made = minhash.MinhashDedupSignature(str(folder), config)
    return made


def datatrove_clusters(texts: list[str], folder: Path) -> dict[int, int]:
    """Document -> cluster, by its own three stages; documents in no cluster are absent."""
    minhash = pytest.importorskip("datatrove.pipeline.dedup.minhash")
    data = pytest.importorskip("datatrove.data")
    sign = datatrove_signatures(folder / "signatures")
    sign.word_tokenizer, config = SameWords(), sign.config
    sign.run([data.Document(text=text, id=str(i)) for i, text in enumerate(texts)])
    for rank in range(14):
        minhash.MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=config).run(
            rank=rank, world_size=14
        )
    minhash.MinhashDedupCluster(
        str(folder / "buckets"), str(folder / "clusters"), config=config, save_cluster_id=True
    ).run(world_size=1)
    found = np.fromfile(folder / "clusters" / "000000.clusters", dtype="<u4").reshape(-1, 2)
    return dict(found.tolist())


def test_clusters_are_datatroves(data: Path, tmp_path: Path) -> None:
    """Who is with whom; who of them stays is another rule there."""
    texts = near_copies(real_texts(data, 60))
    clusters = datatrove_clusters(texts, tmp_path / "datatrove")
    theirs: dict[int, list[int]] = {}
    for document, cluster in clusters.items():
        theirs.setdefault(cluster, []).append(document)
    shards = save_shards(tmp_path / "shards", HASHER.signatures(texts), list(range(len(texts))), 17)
    ids = [f"s{i // 17}-{i % 17}" for i in range(len(texts))]
    ours: dict[str, list[int]] = {}
    for document, first in enumerate(firsts(shards, tmp_path / "scratch")):
        ours.setdefault(first, []).append(document)
    assert all(ids[members[0]] == first for first, members in ours.items())
    assert sorted(m for m in ours.values() if len(m) > 1) == sorted(sorted(m) for m in theirs.values())
    assert len(theirs) >= 60


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


def test_the_first_of_each_cluster_stays(data: Path, tmp_path: Path) -> None:
    texts = near_copies(real_texts(data, 25))
    expected = brute_force(texts)
    assert 25 <= len(set(expected)) < len(texts) * 2 // 3  # the copies with few changes are found
    shards = shards_of(texts, tmp_path / "shards")
    assert firsts(shards, tmp_path / "near", exact={"enabled": False}) == [f"s{i // 10}-{i % 10}" for i in expected]


def shards_of(texts: list[str], folder: Path) -> list[Path]:
    """The texts screened, ten in a shard."""
    shards = save_shards(folder, HASHER.signatures(texts), list(range(len(texts))), 10)
    for shard, at in zip(shards, range(0, len(texts), 10), strict=True):
        np.save(shard / "digests.npy", np.array([digest(text) for text in texts[at : at + 10]]))
    return shards


def test_exact_duplicates_keep_the_first(tmp_path: Path) -> None:
    texts = ["same text", GOLDEN, "same text", "Same text", GOLDEN, "same text", GOLDEN.upper()]
    shards = shards_of(texts, tmp_path / "shards")
    (removed,) = find_duplicates(shards, FilterConfig(pages="x"), tmp_path / "scratch")
    assert removed == [
        Removal(2, "exact", 1.0, "s0-0", 3),
        Removal(4, "exact", 1.0, "s0-1", 2),
        Removal(5, "exact", 1.0, "s0-0", 3),
        Removal(6, "minhash", 1.0, "s0-1", 2),
    ]


def test_short_texts_are_left_to_the_exact_step(tmp_path: Path) -> None:
    texts = ["one two three", "one two three", "one two three four five", "One two three: four five!"]
    shards = shards_of(texts, tmp_path / "shards")
    assert firsts(shards, tmp_path / "scratch", exact={"enabled": False}) == ["s0-0", "s0-1", "s0-2", "s0-2"]
    assert firsts(shards, tmp_path / "scratch") == ["s0-0", "s0-0", "s0-2", "s0-2"]
    assert len(words("One two three: four five!")) == 7  # the signature is of the simplified text
