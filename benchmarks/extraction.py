"""Extraction side by side: pages a second of processor time, and precision, recall and F1 on hand-marked articles.

    python benchmarks/extraction.py DATA [--pages 416]

DATA holds web/*.jsonl.gz with one page a row (`html` or `html_b64`); those of article_extraction_benchmark.jsonl.gz
also have `gold_text`. Every method sees the same pages in the same order, cold. Scores are of 4-word shingles, as the
article extraction benchmark (scrapinghub) defines them. Guarded methods run in llmctl's parser process, and its time
and the caller's are added; datatrove's sandbox is measured the same way.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import multiprocessing
import re
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from llmctl.filter.config import ExtractSettings
from llmctl.filter.extract import Extract
from llmctl.filter.html_text import MainText
from llmctl.filter.row import Row
from llmctl.formats.charset import decode
from llmctl.formats.document import Document

Page = tuple[bytes, str | None]  # HTML and, where there is one, the hand-marked text
Method = Callable[[list[bytes]], list[str]]
_WORD = re.compile(r"\w+")


def read(data: Path) -> list[Page]:
    found: list[Page] = []
    for path in sorted((data / "web").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as f:
            for row in map(json.loads, f):
                html = row.get("html")
                page = base64.b64decode(row["html_b64"]) if html is None else html.encode("utf-8", "replace")
                found.append((page, row.get("gold_text")))
    return found


def plain_trafilatura(**options: Any) -> Method:
    def run(pages: list[bytes]) -> list[str]:
        from trafilatura import extract

        return [extract(decode(p), favor_precision=True, include_comments=False, **options) or "" for p in pages]

    return run


def inside(**settings: Any) -> Method:
    """llmctl's extractor without its process."""

    def run(pages: list[bytes]) -> list[str]:
        main_text = MainText(ExtractSettings(**settings))
        return [main_text((p, None)) for p in pages]

    return run


def guarded(**settings: Any) -> Method:
    step = Extract(ExtractSettings(**settings))  # its process starts with the first page

    def run(pages: list[bytes]) -> list[str]:
        texts = []
        for page in pages:
            row = Row(Document(id="", html=page))
            step(row)
            texts.append(row.text or "")
        return texts

    return run


def datatrove(pages: list[bytes]) -> list[str]:
    """With the limit of a minute, so that a busy machine loses no page to it, and its memory across pages off."""
    from datatrove.data import Document as TheirDocument
    from datatrove.pipeline.extractors import Trafilatura

    step = Trafilatura(timeout=60, deduplicate=False)
    documents = (TheirDocument(text=decode(p), id=str(i)) for i, p in enumerate(pages))
    texts = {document.id: document.text for document in step.run(documents, 0, 1)}
    return [texts.get(str(i), "") for i in range(len(pages))]


METHODS: dict[str, Method] = {
    "trafilatura": plain_trafilatura(),
    "trafilatura, fast": plain_trafilatura(fast=True),
    "datatrove's Trafilatura block": datatrove,
    "llmctl, trafilatura": inside(),
    "llmctl, trafilatura, guarded": guarded(),
    "llmctl, trafilatura fast, guarded": guarded(fast=True),
    "llmctl, resiliparse": inside(extractor="resiliparse"),
    "llmctl, resiliparse, guarded": guarded(extractor="resiliparse"),
}


def shingles(text: str) -> Counter[tuple[str, ...]]:
    words = _WORD.findall(text)
    return Counter(tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3)) if words)


def score(texts: list[str], gold: list[str]) -> tuple[float, float, float]:
    """Precision and recall, averaged over pages, and the F1 of the two averages."""
    precision, recall = [], []
    for found, marked in zip(map(shingles, texts), map(shingles, gold), strict=True):
        both = sum((found & marked).values())
        if found:
            precision.append(both / sum(found.values()))
        if marked:
            recall.append(both / sum(marked.values()))
    p, r = statistics.mean(precision), statistics.mean(recall)
    return p, r, 2 * p * r / (p + r)


def measured(name: str, pages: list[bytes], pipe: Any) -> None:
    """In a process of its own: what one method patches or remembers is no other's."""
    METHODS[name](pages[:8])  # libraries loaded
    before = _used()
    texts = METHODS[name](pages)
    pipe.send((texts, _used() - before))


def _used() -> float:
    """Seconds of processor time of this process and of its children, those that have ended among them."""
    me = psutil.Process()
    every = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return float(sum(times.user + times.system + times.children_user + times.children_system for times in every))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pages", type=int, default=None)
    parser.add_argument("--only", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    arguments = parser.parse_args()
    pages = read(arguments.data)[: arguments.pages]
    html, marked = [p for p, _ in pages], [i for i, (_, gold) in enumerate(pages) if gold is not None]
    print(f"{len(html)} pages, {sum(map(len, html)) / len(html) / 1000:.0f} kB each, {len(marked)} marked by hand\n")
    print("| method | pages/s | P | R | F1 | pages unlike trafilatura's |\n|---|---|---|---|---|---|")
    reference: list[str] | None = None
    context = multiprocessing.get_context("spawn")
    for name in arguments.only:
        ours, theirs = context.Pipe()
        process = context.Process(target=measured, args=(name, html, theirs))
        process.start()
        texts, seconds = ours.recv()
        process.join()
        reference = reference or texts
        unlike = sum(a.strip() != b.strip() for a, b in zip(texts, reference, strict=True))
        p, r, f1 = score([texts[i] for i in marked], [pages[i][1] or "" for i in marked])
        print(f"| {name} | {len(html) / seconds:.1f} | {p:.3f} | {r:.3f} | {f1:.3f} | {unlike} |", flush=True)


if __name__ == "__main__":
    main()
