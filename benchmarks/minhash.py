"""Near-duplicates: signatures a second against datatrove's, memory and time against the number of documents.

    python benchmarks/minhash.py TEXTS.jsonl.gz... [--documents 50000 200000 800000] [--cores 64]

TEXTS are JSON Lines with a field `text`, cut into pieces of 4,300 characters. Both sides sign the same pieces in turns,
in processor time of one core, and every signature is compared. Then made-up signatures, a third of them similar ones,
go through `find_duplicates`, in a process of its own for each size. What a dump of Common Crawl would cost is worked
out from both. Needs datatrove and spacy (`pip install datatrove spacy`).
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmctl.console import Console
from llmctl.filter.bands import MEMORY as MEMORY_DEFAULT
from llmctl.filter.bands import RECORD
from llmctl.filter.config import FilterConfig, MinHashSettings
from llmctl.filter.duplicates import find_duplicates
from llmctl.filter.minhash import MinHasher

PIECE = 4300  # characters: the mean of web documents
DUMP = 150_000_000  # documents of one dump of Common Crawl that reach this step (FineWeb, section 3)
MEMORY = 16 << 20  # for sorting: small, so that these sizes need many partitions as a dump does with the default
BYTES = 13 + 8 / 2  # of memory a document, see llmctl/filter/duplicates.py; a cluster has two documents or more
SHARD = 1000  # documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", nargs="*", type=Path)
    parser.add_argument("--pieces", type=int, default=400)
    parser.add_argument("--documents", type=int, nargs="+", default=[50_000, 200_000, 800_000])
    parser.add_argument("--cores", type=int, default=64)
    parser.add_argument("--measure", nargs=2, metavar=("SHARDS", "SCRATCH"), type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    console = Console()
    signing = compare(pieces(args.texts, args.pieces))
    finding = [in_a_process(documents) for documents in args.documents]
    console.table("signatures, one core", ("", "documents/s", "times"), signing_rows(signing))
    columns = ("documents", "removed", "largest cluster", "seconds", "peak MB", "scratch MB")
    console.table(
        f"find_duplicates, one core, {MEMORY >> 20} MB for sorting", columns, [list(r) for r in finding_rows(finding)]
    )
    console.table(f"a dump of {DUMP:,} documents, worked out", ("", ""), dump_rows(signing, finding, args.cores))
    print(json.dumps({"machine": platform.processor() or platform.machine(), "signing": signing, "finding": finding}))


def pieces(paths: Sequence[Path], count: int) -> list[str]:
    """The first `count` pieces of the texts of all files in turn."""
    found: list[str] = []
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            texts = [json.loads(line)["text"] for line in file]
        cut = [text[at : at + PIECE] for text in texts for at in range(0, len(text), PIECE)]
        found += cut[: count // len(paths)]
    return found


def compare(texts: list[str]) -> dict[str, float]:
    """Documents a second: datatrove, ours one by one, ours many at once. Fails where a signature differs."""
    theirs, ours = datatrove_signature(), MinHasher(MinHashSettings())
    ways: dict[str, Callable[[], list[Any]]] = {
        "datatrove": lambda: [theirs(text) for text in texts],
        "signature": lambda: [ours.signature(text) for text in texts],
        "signatures": lambda: ours.signatures(texts),
    }
    found = {name: way() for name, way in ways.items()}  # the word caches of both are warm from here on
    for i, expected in enumerate(found["datatrove"]):
        for name in ("signature", "signatures"):
            got = found[name][i]
            assert (got.tolist() if got is not None else None) == expected, f"{name} differs: {texts[i][:80]!r}"
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(3):  # in turns, so that a busy moment of the machine does not count against one side
        for name, way in ways.items():
            begun = time.process_time()
            way()
            seconds[name] = min(seconds[name], time.process_time() - begun)
    return {name: len(texts) / s for name, s in seconds.items()}


def datatrove_signature() -> Callable[[str], list[list[int]] | None]:
    """Of a text, by datatrove in FineWeb's configuration."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig

    config = MinhashConfig(hash_config=HashConfig(hash_fc="sha1", precision=64))
    step = MinhashDedupSignature(tempfile.mkdtemp(), config)

    def signature(text: str) -> list[list[int]] | None:
        shingles = step.get_shingles(text)
        return step.get_signature(shingles) if shingles.size else None

    return signature


def in_a_process(documents: int) -> dict[str, float]:
    """`measure` on made-up shards, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        shards, scratch = Path(folder, "shards"), Path(folder, "scratch")
        make_shards(shards, documents)
        command = [sys.executable, __file__, "--measure", str(shards), str(scratch)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(shards: Path, scratch: Path) -> dict[str, float]:
    """Time, peak memory of this process before and after, and what was found."""
    before = peak()
    begun = time.process_time()
    folders = sorted(shards.iterdir())
    removed = find_duplicates(folders, FilterConfig(pages="x"), scratch, MEMORY)
    seconds, after = time.process_time() - begun, peak()
    near = removed.figures["minhash"]
    documents = sum(len(np.load(folder / "digests.npy", mmap_mode="r")) for folder in folders)
    kept = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
    return {
        "documents": documents,
        "removed": near["removed"] + removed.figures["exact"]["removed"],
        "largest": near["largest"],
        "seconds": seconds,
        "before": before,
        "peak": after,
        "scratch": kept + documents * RECORD * MinHashSettings().buckets,
    }


def peak() -> int:
    """The most memory that this process has had, in bytes. (Linux's ru_maxrss counts that of the parent in.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def make_shards(folder: Path, documents: int) -> None:
    """One in twenty texts equal to an earlier one, a third similar to one at about 0.9; the rest are random."""
    chance = np.random.default_rng(0)
    originals = chance.integers(0, 1 << 61, (documents // 10, 14, 8), dtype=np.uint64)
    for number, at in enumerate(range(0, documents, SHARD)):
        shard, size = folder / f"{number:06d}", min(SHARD, documents - at)
        shard.mkdir(parents=True)
        signatures = chance.integers(0, 1 << 61, (size, 14, 8), dtype=np.uint64)
        copies = np.flatnonzero(chance.random(size) < 1 / 3)
        same = chance.random((len(copies), 14, 8)) < 0.9
        signatures[copies] = np.where(
            same, originals[chance.integers(0, len(originals), len(copies))], signatures[copies]
        )
        digests = np.repeat(
            np.arange(at, at + size, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15), 2, axis=1
        )
        equal = np.flatnonzero(chance.random(size) < 1 / 20)
        digests[equal] = digests[chance.integers(0, size, len(equal))]
        np.save(shard / "signatures.npy", signatures)
        np.save(shard / "signed_rows.npy", np.arange(size))
        np.save(shard / "digests.npy", digests)
        ids = [f"<urn:uuid:{at + row:032x}>" for row in range(size)]
        pq.write_table(pa.table({"id": ids}), shard / "kept.parquet")


def signing_rows(signing: dict[str, float]) -> list[list[str]]:
    names = {"datatrove": "datatrove", "signature": "llmctl, one by one", "signatures": "llmctl, many at once"}
    return [[name, f"{signing[key]:,.0f}", f"{signing[key] / signing['datatrove']:.1f}"] for key, name in names.items()]


def finding_rows(finding: list[dict[str, float]]) -> list[list[str]]:
    bare = f"{finding[0]['before'] / 1e6:,.0f}"
    found = [["0", "", "", "", bare, ""]]
    for one in finding:
        counts = [f"{one[name]:,.0f}" for name in ("documents", "removed", "largest")]
        found.append([*counts, f"{one['seconds']:.1f}", *(f"{one[name] / 1e6:,.0f}" for name in ("peak", "scratch"))])
    return found


def dump_rows(signing: dict[str, float], finding: list[dict[str, float]], cores: int) -> list[list[str]]:
    """From the rate of signing, and from the growth between the two largest sizes."""
    *_, less, more = sorted(finding, key=lambda found: found["documents"])
    seconds, disk = (
        (more[n] - less[n]) / (more["documents"] - less["documents"]) * DUMP for n in ("seconds", "scratch")
    )
    signatures = DUMP * (14 * 8 + 1 + 2) * 8
    return [
        ["signatures on disk", f"{signatures / 1e9:,.0f} GB"],
        ["scratch on disk", f"{disk / 1e9:,.0f} GB"],
        ["memory for finding duplicates", f"{(DUMP * BYTES + MEMORY_DEFAULT) / 1e9:.1f} GB at most"],
        [f"signing, {cores} cores", f"{DUMP / signing['signatures'] / cores / 3600:.1f} hours"],
        ["finding duplicates, one core", f"{seconds / 3600:.1f} hours"],
        ["reading and writing for it, 1 GB/s", f"{2 * (signatures + disk) / 1e9 / 3600:.1f} hours"],
    ]


if __name__ == "__main__":
    main()
