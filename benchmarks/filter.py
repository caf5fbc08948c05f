"""Our filters beside datatrove's, in one run, on one core, on the same documents.

    python benchmarks/filter.py FILE...            # the text rules with MinHash: decisions and documents a second
    python benchmarks/filter.py --pages WARC...    # WARC to Parquet as a whole

FILE: anything that llmctl reads (JSON Lines, text, WARC, HTML); HTML is extracted first, by ours, and both sides get
the text. It needs `pip install datatrove spacy faust-cchardet python-magic`. Times are processor time of this process,
warm: each side sees the documents once before it is timed.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from llmctl.filter.config import FilterConfig
from llmctl.filter.decide import decide
from llmctl.filter.measure import Measurer
from llmctl.filter.minhash import MinHasher
from llmctl.filter.steps import STEPS
from llmctl.formats.document import Document
from llmctl.formats.web import read_documents

TEXT_STEPS = ("gopher_repetition", "gopher_quality", "c4", "fineweb_quality")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=2000, help="documents at most")
    parser.add_argument("--pages", action="store_true", help="measure pages to Parquet as a whole instead")
    parser.add_argument("--kept", action="store_true", help="time only the documents that all rules keep")
    given = parser.parse_args()
    if given.pages:
        whole(given.files)
        return
    texts = documents(given.files, given.most)
    ours, theirs = our_decisions(texts), their_decisions(texts)
    compare(texts, ours, theirs)
    if given.kept:
        texts = [text for text, rule in zip(texts, theirs, strict=True) if not rule]
    speed(texts)


def documents(files: Sequence[Path], most: int) -> list[str]:
    """The texts of the files; those of HTML by Trafilatura with FineWeb's settings."""
    import trafilatura

    texts = []
    for document in itertools.chain.from_iterable(read_documents(file) for file in files):
        text = document.text
        if text is None:
            text = trafilatura.extract(document.markup(), favor_precision=True, include_comments=False) or ""
        texts.append(text)
        if len(texts) >= most:
            break
    return texts


def our_decisions(texts: Sequence[str]) -> list[str]:
    """The first rule that drops each text; "" where it is kept."""
    measurer = _measurer(all_rules=True)
    scored = measurer(Document(id=str(i), text=text) for i, text in enumerate(texts))
    first = decide(measurer.columns, scored.values).first
    return [measurer.columns[i].rule.name if i >= 0 else "" for i in first]


def _measurer(all_rules: bool) -> Measurer:
    config = FilterConfig(pages="-")
    return Measurer([STEPS[name](getattr(config, name)) for name in TEXT_STEPS], all_rules)


def their_decisions(texts: Sequence[str]) -> list[str]:
    """datatrove's."""
    chain = their_chain()
    return [chain(text)[0].removeprefix("gopher_") for text in texts]


def their_chain() -> Callable[[str], tuple[str, str]]:
    """text -> (the reason that drops it, the text that is left)."""
    from datatrove.data import Document as Theirs
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    steps = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]

    def run(text: str) -> tuple[str, str]:
        document = Theirs(text=text, id="x")
        for step in steps:
            answer = step.filter(document)
            if answer is not True:
                return (answer[1] if isinstance(answer, tuple) else "dropped"), document.text
        return "", document.text

    return run


def compare(texts: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> None:
    different = [(i, a, b) for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    print(f"documents          {len(texts):,}, {sum(map(len, texts)) / max(len(texts), 1):,.0f} characters each")
    print(f"kept               ours {ours.count(''):,}, datatrove {theirs.count(''):,}")
    print(f"same first rule    {len(texts) - len(different):,} ({1 - len(different) / max(len(texts), 1):.4%})")
    for i, a, b in different[:20]:
        print(f"  document {i}: ours {a or 'kept'}, datatrove {b or 'kept'}: {texts[i][:60]!r}")
    print("dropped by         " + ", ".join(f"{rule} {n}" for rule, n in Counter(theirs).most_common(8) if rule))


def speed(texts: Sequence[str]) -> None:
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig

    theirs = MinhashDedupSignature(
        "/tmp/unused",
        MinhashConfig(
            n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(hash_fc="sha1", precision=64)
        ),
    )
    chain, hasher = their_chain(), MinHasher(FilterConfig(pages="-").minhash)

    def their_signature(text: str) -> None:
        shingles = theirs.get_shingles(text)
        if shingles.size:
            theirs.get_signature(shingles)

    def their_all(text: str) -> None:
        rule, left = chain(text)
        if not rule:
            their_signature(left)

    def ours_all(batch: Sequence[str], all_rules: bool) -> None:
        measurer = _measurer(all_rules)
        scored = measurer(Document(id="x", text=text) for text in batch)
        kept = decide(measurer.columns, scored.values).kept
        list(hasher.signatures([scored.final[i] or "" for i in kept]))

    few = texts[: max(1, len(texts) // 4)]
    rows = [
        ("rules and MinHash, datatrove", rate(lambda: [their_all(t) for t in few], len(few))),
        ("rules and MinHash, ours", rate(lambda: ours_all(texts, False), len(texts))),
        ("the same with every value", rate(lambda: ours_all(texts, True), len(texts))),
        ("signatures, datatrove", rate(lambda: [their_signature(t) for t in few], len(few))),
        ("signatures, ours", rate(lambda: list(hasher.signatures(texts)), len(texts))),
    ]
    print(f"\n{'documents a second, one core':<32} {len(texts):,} documents")
    for name, found in rows:
        print(f"  {name:<30} {found:>8,.0f}")
    ratios = [rows[i][1] / rows[0][1] for i in (1, 2)] + [rows[4][1] / rows[3][1]]
    print("  rules and MinHash: {:.1f} times; every value: {:.1f} times; signatures: {:.1f} times".format(*ratios))


def whole(files: Sequence[Path]) -> None:
    """WARC files to a filtered, deduplicated Parquet corpus: extraction and all text rules, without lists of addresses
    and without a language filter (datatrove's needs a model from the network).
    """
    count = sum(1 for file in files for _ in read_documents(file))
    with tempfile.TemporaryDirectory() as scratch:
        rows = []
        for name, run in (("datatrove", their_whole), ("ours", our_whole)):
            begun = time.perf_counter()
            kept = run([str(file.resolve()) for file in files], Path(scratch) / name)
            rows.append((name, kept, time.perf_counter() - begun))
    print(f"{count:,} pages, one process, on the clock")
    for name, kept, seconds in rows:
        print(f"  {name:<12} {kept:>6,} kept  {seconds:>7.1f} s  {count / seconds:>7.1f} pages a second")
    print(f"  ratio {rows[0][2] / rows[1][2]:.1f}")


def our_whole(files: Sequence[str], folder: Path) -> int:
    """`llmctl filter` on a folder of them; how many documents were kept."""
    from llmctl.console import Console
    from llmctl.filter.stage import run
    from llmctl.workspace import Workspace

    source = folder / "source"
    source.mkdir(parents=True)
    for file in files:
        (source / Path(file).name).symlink_to(file)
    config = FilterConfig.model_validate({"pages": str(source), "workers": 1, "language": {"enabled": False}})
    return int(run(config, Workspace(folder / "w"), Console(quiet=True)).figures["documents_kept"])


def their_whole(files: Sequence[str], folder: Path) -> int:
    """datatrove's blocks in FineWeb's order and its four MinHash stages; how many documents were kept."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import ParquetReader, WarcReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils.hashing import HashConfig
    from loguru import logger

    logger.remove()
    source = folder / "source"
    source.mkdir(parents=True)
    for file in files:
        (source / Path(file).name).symlink_to(file)
    config = MinhashConfig(
        n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(hash_fc="sha1", precision=64)
    )
    at = {name: str(folder / name) for name in ("text", "sigs", "dups", "gone", "out")}
    first = [
        WarcReader(str(source), glob_pattern="*.warc*", compression="infer"),
        Trafilatura(favour_precision=True, timeout=5),
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
        ParquetWriter(at["text"]),
    ]
    last = [
        ParquetReader(at["text"]),
        MinhashDedupFilter(input_folder=at["gone"]),
        PIIFormatter(),
        ParquetWriter(at["out"]),
    ]
    stages = [
        (first, 1),
        ([ParquetReader(at["text"]), MinhashDedupSignature(output_folder=at["sigs"], config=config)], 1),
        ([MinhashDedupBuckets(input_folder=at["sigs"], output_folder=at["dups"], config=config)], 14),
        ([MinhashDedupCluster(input_folder=at["dups"], output_folder=at["gone"], config=config)], 1),
        (last, 1),
    ]
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(folder / f"log{number}")).run()
    import pyarrow.parquet as pq

    return sum(pq.ParquetFile(path).metadata.num_rows for path in Path(at["out"]).glob("*.parquet"))


def rate(run: Callable[[], object], count: int) -> float:
    """Documents a second of processor time, the better of two warm runs."""
    run()
    best = float("inf")
    for _ in range(2):
        begun = time.process_time()
        run()
        best = min(best, time.process_time() - begun)
    return count / best


if __name__ == "__main__":
    main()
