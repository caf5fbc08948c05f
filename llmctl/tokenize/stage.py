"""`tokenize`: a corpus becomes a tokenizer and token shards, resumable and the same on any number of cores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.formats.tokens import TokenWriter, dtype_for, write_meta
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.tokenize.config import TokenizeConfig
from llmctl.tokenize.split import Split, plan_split
from llmctl.tokenize.stream import load_any_tokenizer
from llmctl.tokenize.texts import Texts
from llmctl.workspace import Artifact, Build, Foreign, Workspace
from llmctl.workspace.files import write_json

_BATCH_CHARS = 4_000_000  # what is encoded at once: enough to keep the cores busy, little enough to hold in memory
_SAVE_EVERY = 4  # batches between two saves of the progress: a few seconds of work


def run(config: TokenizeConfig, workspace: Workspace, console: Console) -> Artifact:
    """Make the tokens, and before them the tokenizer unless one is given."""
    if config.workers:
        os.environ["RAYON_NUM_THREADS"] = str(config.workers)  # read by `tokenizers` at its first use
    texts = Texts(workspace.resolve(config.corpus, ("corpus",), files=True))
    split = plan_split(texts, config.val_fraction, config.seed)
    tokenizer, source = _tokenizer(config, workspace, console, texts, split)
    with workspace.build(config) as build:
        if isinstance(source, Artifact) and all(i.reference() != source.reference() for i in build.inputs):
            build.inputs.append(source)
        tokenizer.save(build.path / "tokenizer")
        writers, documents = _encode(config, build, console, texts, split, tokenizer)
        write_meta(
            build.path,
            writers,
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
            tokenizer=tokenizer.digest,
        )
        build.figures |= _figures(writers, documents, tokenizer)
        if config.compare:
            build.figures |= _compared(config, workspace, list(split.only("val", texts)), build.figures)
    if texts.damage:
        console.warn(f"{len(texts.damage)} places of the input could not be read, the first: {texts.damage[0]}")
    return build.done()


def plan(config: TokenizeConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What would be made, and about how much."""
    texts = Texts(workspace.resolve(config.corpus, ("corpus",), files=True))
    size, exact = texts.size()
    rows = [("corpus", f"{size / 1e6:,.1f} MB {'of text' if exact else 'on disk'}")]
    if config.tokenizer:
        vocab_size = load_any_tokenizer(workspace, config.tokenizer).with_specials().vocab_size
        rows.append(("tokenizer", f"{config.tokenizer}: {vocab_size:,} tokens"))
    else:
        vocab_size, digits = config.vocab_size, config.digits_for(config.vocab_size)
        rows.append(("tokenizer", f"to train: {vocab_size:,} tokens, at most {digits} digits each"))
    # Roughly, for English; other languages and code need more tokens.
    tokens = size / float(np.interp(np.log2(vocab_size), [8, 12, 13, 15, 16.6], [1.0, 3.4, 3.9, 4.4, 4.7]))
    dtype = dtype_for(vocab_size)
    rows.append(("tokens", f"about {tokens / 1e6:,.1f} M, {config.val_fraction:.1%} of the documents held out"))
    rows.append(("disk", f"about {tokens * np.dtype(dtype).itemsize / 1e6:,.1f} MB of {dtype}"))
    return rows


def _tokenizer(
    config: TokenizeConfig, workspace: Workspace, console: Console, texts: Texts, split: Split
) -> tuple[Tokenizer, Artifact | Foreign]:
    """The tokenizer to use: the given one, one made by an earlier run of the same settings, or a new one."""
    if config.tokenizer:
        kinds = ("tokenizer", "model", "tokens")
        given = load_any_tokenizer(workspace, config.tokenizer)
        return given.with_specials(), workspace.resolve(config.tokenizer, kinds, files=True)
    if made := workspace.current(config, kind="tokenizer"):
        return Tokenizer.load(made.path), made
    with workspace.build(config, kind="tokenizer") as build:
        console.info(f"learning a vocabulary of {config.vocab_size:,}")
        learned = _first_chars(split.only("train", texts), config.max_train_chars)
        tokenizer = train_tokenizer(learned, config.vocab_size, config.digits_for(config.vocab_size))
        if tokenizer.vocab_size < config.vocab_size:
            console.warn(
                f"the corpus has words for a vocabulary of {tokenizer.vocab_size:,} only; {config.vocab_size:,} asked"
            )
        tokenizer.save(build.path)
        build.figures |= {
            "vocab_size": tokenizer.vocab_size,
            "headline": {"label": "vocabulary", "before": None, "after": tokenizer.vocab_size, "unit": "tokens"},
        }
    return tokenizer, build.done()


def _encode(
    config: TokenizeConfig, build: Build, console: Console, texts: Texts, split: Split, tokenizer: Tokenizer
) -> tuple[list[TokenWriter], int]:
    """Encode every document in order; returns the writers and the number of documents.

    The progress file says how many documents are in the shards, so a killed run goes on there.
    """
    progress = build.scratch / "progress.json"
    done = _read_progress(progress)
    dtype = dtype_for(tokenizer.vocab_size)
    writers = {s: TokenWriter(build.path, s, dtype, config.shard_tokens, done.get(s)) for s in ("train", "val")}
    count = done.get("documents", 0)
    with console.progress("tokenize", None, "documents") as bar:
        bar.start_at(count)
        for number, batch in enumerate(_batches(islice(texts, count, None)), 1):
            pieces = [piece for text in batch for piece in split.part(text)]
            for (side, text), ids in zip(pieces, tokenizer.encode_batch([t for _, t in pieces]), strict=True):
                writers[side].add(np.asarray([*ids, tokenizer.eos_id]), len(text.encode()))
            count += len(batch)
            bar.advance(len(batch))
            if number % _SAVE_EVERY == 0:
                write_json(progress, {"documents": count} | {s: w.state() for s, w in writers.items()})
    for w in writers.values():
        w.close()
    return list(writers.values()), count


def _read_progress(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in runs of about `_BATCH_CHARS` characters."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _first_chars(texts: Iterable[str], limit: int) -> Iterator[str]:
    """The texts up to `limit` characters in all, the last one cut. UserError where there is none."""
    left = limit
    for text in texts:
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return
    if left == limit:
        raise UserError("the corpus holds no text to learn a vocabulary from")


def _compared(
    config: TokenizeConfig, workspace: Workspace, held_out: list[str], figures: dict[str, Any]
) -> dict[str, Any]:
    """Bytes a token of other tokenizers on the same held-out text."""
    size = sum(len(text.encode()) for text in held_out)
    found = {}
    for name in config.compare:
        other = load_any_tokenizer(workspace, name)
        found[Path(name).name] = round(size / max(1, sum(map(len, other.encode_batch(held_out)))), 4)
    shown = [{"label": f"bytes a token, {name}", "after": value, "unit": ""} for name, value in found.items()]
    return {"bytes_per_token_of": {**found, config.out: figures["bytes_per_token"]}, "more": shown}


def _figures(writers: list[TokenWriter], documents: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the stage measured. Bytes a token count text only, not the end-of-text of each document."""
    train, val = writers
    size = train.bytes + val.bytes
    held_out = val.bytes / max(1, val.tokens - val.documents)
    return {
        "vocab_size": tokenizer.vocab_size,
        "train_documents": train.documents,
        "val_documents": val.documents,
        "train_tokens": train.tokens,
        "val_tokens": val.tokens,
        "bytes": size,
        "bytes_per_token": round(held_out, 4),
        "bytes_per_token_train": round(train.bytes / max(1, train.tokens - train.documents), 4),
        "headline": {"label": "bytes a token", "before": 1.0, "after": round(held_out, 2), "unit": ""},
        "in": f"{documents:,} documents, {size / 1e6:.1f} MB",
        "out": f"{train.tokens + val.tokens:,} tokens",
    }
