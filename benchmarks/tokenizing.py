"""Encoding a corpus and learning a vocabulary, beside `tokenizers` and rustbpe, in one run.

    python benchmarks/tokenizing.py TEXTS.jsonl.gz [--megabytes 10] [--vocab 8192]

TEXTS: rows with `text`. Encoding: `llmctl tokenize` with a tokenizer that is there (documents read from Parquet, split,
encoded, written as shards with an index, hashed and sealed) beside `encode_batch` of the same tokenizer in one call,
its ids written by numpy: no reading, no split, no index. Learning: llmctl's vocabulary beside that of `tokenizers` and
of rustbpe (where it can be imported), with the same pattern and the same number of tokens. Seconds are of the wall and,
in brackets, of all cores together: the second figure is the fair one on a machine that others use too.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from llmctl.console import Console
from llmctl.model.published import gpt4_pattern
from llmctl.model.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer
from llmctl.tokenize.config import TokenizeConfig
from llmctl.tokenize.stage import run
from llmctl.workspace import Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--megabytes", type=float, default=10.0)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=2, help="the best of so many is shown")
    given = parser.parse_args()
    texts = list(read(given.texts, given.megabytes * 1e6))
    size = sum(len(t.encode()) for t in texts)
    print(f"{len(texts)} documents, {size / 1e6:.1f} MB, vocabulary {given.vocab:,}")
    digits = TokenizeConfig(corpus="").digits_for(given.vocab)
    pattern, learned = gpt4_pattern(digits), given.vocab - len(SPECIAL_TOKENS)
    print("learning a vocabulary")
    ours: Tokenizer = shown("llmctl", size, given.repeats, lambda: train_tokenizer(texts, given.vocab, digits))
    shown("tokenizers", size, given.repeats, lambda: tokenizers_trainer(texts, learned, pattern))
    try:
        import rustbpe

        shown(
            "rustbpe", size, given.repeats,
            lambda: rustbpe.Tokenizer().train_from_iterator(iter(texts), learned, pattern=pattern),
        )  # fmt: skip
    except ImportError:
        print("  rustbpe      is not installed")
    print("encoding and writing")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        ours.save(place / "tokenizer")
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), place / "texts.parquet")
        shown("llmctl", size, given.repeats, lambda: stage(place))
        shown("tokenizers", size, given.repeats, lambda: plain(ours, texts, place / "ids.npy"))


def read(path: Path, most: float) -> Any:
    """Texts up to so many characters."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            text = json.loads(line)["text"]
            yield text
            most -= len(text)
            if most <= 0:
                return


def shown(name: str, size: int, repeats: int, call: Callable[[], Any]) -> Any:
    best, found = (float("inf"), float("inf")), None
    for _ in range(repeats):
        begun = time.perf_counter(), time.process_time()
        found = call()
        best = min(best, (time.perf_counter() - begun[0], time.process_time() - begun[1]), key=lambda pair: pair[1])
    print(
        f"  {name:<12} {best[0]:6.2f} s ({best[1]:.2f})   {size / 1e6 / best[1]:5.1f} MB a second and core", flush=True
    )
    return found


def tokenizers_trainer(texts: list[str], size: int, pattern: str) -> None:
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    engine = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )


def stage(place: Path) -> None:
    config = TokenizeConfig(corpus=str(place / "texts.parquet"), tokenizer=str(place / "tokenizer"), out="made")
    with tempfile.TemporaryDirectory() as folder:
        run(config, Workspace(folder), Console(quiet=True))


def plain(tokenizer: Tokenizer, texts: list[str], file: Path) -> None:
    import tokenizers

    engine = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.spec))
    found = engine.encode_batch(texts, add_special_tokens=False)
    np.save(file, np.concatenate([np.asarray(e.ids, np.uint16) for e in found]))


if __name__ == "__main__":
    sys.exit(main())
