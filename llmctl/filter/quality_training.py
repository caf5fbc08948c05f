"""Training a fastText classifier on good and bad examples: the same file for the same examples, and measured on some
that it has not seen.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from llmctl.errors import UserError
from llmctl.filter import fasttext_model
from llmctl.filter.config import QualitySettings
from llmctl.filter.fasttext_model import LABEL
from llmctl.verify.statistics import wilson

_OTHER = "lq"
_HEAPS = 64
_Z95 = 1.959964
_M_PERTURB = -6  # malloc.h


def train(
    good: Iterable[str], bad: Iterable[str], settings: QualitySettings, out: Path, seed: int = 0
) -> dict[str, Any]:
    """Write the model to `out`, whole or not at all, and give its figures.

    The figures: examples `trained` on and `held_out`, as [good, bad]; of those held out, `accuracy` at even odds and
    `auc` (the probability that a good one scores above a bad one), each as [value, low, high] of its 95 % interval, or
    None where none of a kind was held out. The order of the examples does not matter. UserError where there are none of
    a kind.
    """
    with tempfile.TemporaryDirectory(prefix=".quality-", dir=out.parent) as scratch:
        folder = Path(scratch)
        counts = _divide({settings.label: good, _other(settings): bad}, settings, folder)
        for kind, label in (("good", settings.label), ("bad", _other(settings))):
            if not counts[label][0]:
                raise UserError(
                    f"no {kind} examples to train the quality classifier on", f"quality.{kind}", "give more"
                )
        model = _fit(_shuffled(folder), settings, seed)
        model.save_model(str(folder / "model"))
        (folder / "model").replace(out)
        (trained, held), (other_trained, other_held) = counts[settings.label], counts[_other(settings)]
        return {
            "trained": [trained, other_trained],
            "held_out": [held, other_held],
            **_measure(model, folder / "held", settings),
        }


def line_of(text: str, lowercase: bool) -> str:
    """A text as DCLM shows it to fastText: on one line. Nothing in it is taken for a label."""
    line = fasttext_model.one_line(" ".join(text.strip().splitlines()))
    return line.lower() if lowercase else line


def _other(settings: QualitySettings) -> str:
    return _OTHER if settings.label != _OTHER else "hq"


def _divide(examples: dict[str, Iterable[str]], settings: QualitySettings, folder: Path) -> dict[str, tuple[int, int]]:
    """Write the examples into heaps by their digest, and those held out into a file of their own. How many of each
    label were (trained on, held out).
    """
    counts = {}
    heaps = [open(folder / f"heap{i:02d}", "w", encoding="utf-8", newline="\n") for i in range(_HEAPS)]  # noqa: SIM115
    try:
        with open(folder / "held", "w", encoding="utf-8", newline="\n") as held:
            for label, texts in examples.items():
                kept = [0, 0]
                for text in texts:
                    line = line_of(text, settings.lowercase)
                    digest = hashlib.blake2b(line.encode(), digest_size=8).digest()
                    out = int.from_bytes(digest, "big") < settings.held_out * 2.0**64
                    kept[out] += 1
                    heap = held if out else heaps[digest[7] % _HEAPS]
                    heap.write(f"{digest.hex()} {LABEL}{label} {line}\n")
                counts[label] = (kept[0], kept[1])
    finally:
        for heap in heaps:
            heap.close()
    return counts


def _shuffled(folder: Path) -> Path:
    """The examples of all heaps in the order of their digests: fastText learns from them one by one as they come, and
    the last of one kind in a row would count most.
    """
    with open(folder / "train", "w", encoding="utf-8", newline="\n") as f:
        for i in range(_HEAPS):
            f.writelines(line.partition(" ")[2] for line in sorted(_lines(folder / f"heap{i:02d}")))
    return folder / "train"


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", newline="\n") as f:
        yield from f


def _fit(path: Path, settings: QualitySettings, seed: int) -> Any:
    import fasttext

    try:
        with zeroed_memory():
            return fasttext.train_supervised(
                str(path),
                wordNgrams=settings.word_ngrams,
                dim=settings.dimensions,
                bucket=settings.buckets,
                epoch=settings.epochs,
                lr=settings.learning_rate,
                seed=seed + 1,  # its generator takes 0 for 1
                thread=1,  # several write to the same weights, unordered
                verbose=0,
            )
    except RuntimeError as e:
        fix = "lower quality.learning_rate"
        raise UserError(f"fastText cannot train the quality classifier: {e}", fix=fix) from e


@contextmanager
def zeroed_memory() -> Iterator[None]:
    """Within, glibc hands out memory filled with zeros.

    fastText fills a tenth of its weights a thread (DenseMatrix::uniform), so with one thread nine tenths are what the
    memory held before: another model each time, or NaN. Of zeros they are no worse a start than of random numbers,
    since the gradient of the first tenth moves the output weights, and these all others. Without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        mallopt(_M_PERTURB, 0xFF)  # memory is filled with the complement
    try:
        yield
    finally:
        if mallopt:
            mallopt(_M_PERTURB, 0)


def _measure(model: Any, held: Path, settings: QualitySettings) -> dict[str, Any]:
    scores: dict[str, list[float]] = {settings.label: [], _other(settings): []}
    ask = fasttext_model.scorer(model)
    for row in _lines(held):
        _, label, line = row.rstrip("\n").split(" ", 2)
        scores[label.removeprefix(LABEL)].append(ask(line)[settings.label])
    good, bad = (np.sort(np.array(found)) for found in scores.values())
    if not len(good) or not len(bad):
        return {"accuracy": None, "auc": None}
    right = int((good > 0.5).sum() + (bad <= 0.5).sum())
    total = len(good) + len(bad)
    return {"accuracy": [right / total, *wilson(right, total)], "auc": [*auc(good, bad)]}


def auc(good: np.ndarray, bad: np.ndarray) -> tuple[float, float, float]:
    """(AUC, and the ends of its 95 % interval) of scores, sorted, of shapes (m,) and (n,); ties count half.

    The variance is DeLong's (DeLong et al. 1988). It is nothing where all are told apart, however few they are, so the
    interval is never narrower on that side than that of as many out of as many as there are of the rarer kind.
    """
    wins = (np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")) / 2 / len(bad)
    losses = (np.searchsorted(good, bad, "left") + np.searchsorted(good, bad, "right")) / 2 / len(good)
    value = float(wins.mean())
    parts = [found.var(ddof=1) / len(found) if len(found) > 1 else 0.25 for found in (wins, losses)]
    spread = _Z95 * math.sqrt(sum(parts))
    rarer = min(len(good), len(bad))
    low, high = max(value - spread, 0.0), min(value + spread, 1.0)
    return value, (min(low, wilson(rarer, rarer)[0]) if value == 1 else low), high
