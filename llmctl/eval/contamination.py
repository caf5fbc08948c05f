"""Were a task's items in the training data? Looked for by runs of 13 words, through the lineage: model, tokens, corpus.

GPT-3's measure (arXiv 2005.14165, appendix C): an item counts as seen where any run of 13 words of its prompt and
right answer stands in a training document, letters and digits only, in small letters. Items of 8 to 12 words are looked
for as a whole; shorter ones say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from llmctl.eval.core import Bundle
from llmctl.eval.subjects import Subject
from llmctl.eval.task_prompts import Document
from llmctl.eval.task_run import Prepared
from llmctl.eval.templates import render_template
from llmctl.formats.word_runs import runs, word_hashes
from llmctl.workspace import Artifact

LONGEST, SHORTEST = 13, 8
_WORD = re.compile(r"[^\W_]+")


class Haystack:
    """The runs of words of many items, to be looked for in one pass over the documents."""

    def __init__(self, texts: Sequence[str]) -> None:
        hashes: list[np.ndarray] = []
        owners: list[np.ndarray] = []
        self.lengths: set[int] = set()
        for n, text in enumerate(texts):
            words = _words(text)
            length = min(LONGEST, len(words))
            if length >= SHORTEST:
                self.lengths.add(length)
                hashes.append(np.unique(runs(word_hashes(words), [length])[length]))
                owners.append(np.full(len(hashes[-1]), n))
        self.hashes = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
        self.owners = np.concatenate(owners) if owners else np.zeros(0, np.int64)
        order = np.argsort(self.hashes, kind="stable")
        self.hashes, self.owners = self.hashes[order], self.owners[order]

    def found_in(self, documents: Iterator[str]) -> set[int]:
        """The numbers of the items that stand in one of `documents`."""
        hit = np.zeros(len(self.hashes), bool)
        unique = np.unique(self.hashes)
        for text in documents if len(unique) else ():
            for there in runs(word_hashes(_words(text)), self.lengths).values():
                at = np.minimum(np.searchsorted(unique, there), len(unique) - 1)
                matched = unique[at[unique[at] == there]]
                if len(matched):
                    hit |= np.isin(self.hashes, matched)
        return set(self.owners[hit].tolist())


def contamination(tasks: Sequence[Prepared], core: Bundle | None, subjects: Sequence[Subject]) -> list[str]:
    """A line for each task of which items stand in a corpus of the models' lineage; the items are marked."""
    corpora = {(a.kind, a.name): a for s in subjects for a in s.lineage.of_kind("corpus")}
    if not corpora or not (tasks or core):
        return []
    texts = [(task.name, d.number, text_of(task, d)) for task in tasks for d in task.documents]
    for items in core.tasks if core else ():
        texts += [(items.name, n, _core_text(row)) for n, row in enumerate(items.rows)]
    needles = Haystack([text for _, _, text in texts])
    by = {task.name: task for task in tasks}
    notes = []
    for artifact in corpora.values():
        share: dict[str, int] = {}
        for n in sorted(needles.found_in(corpus_texts(artifact))):
            name, number, _ = texts[n]
            share[name] = share.get(name, 0) + 1
            if name in by:
                by[name].in_training.setdefault(number, artifact.name)
        for name, found in share.items():
            asked = sum(t[0] == name for t in texts)
            notes.append(
                f"{name}: {100 * found / asked:.1f} % of its items ({found:,} of {asked:,}) stand in {artifact.name}, "
                "which the models were trained on"
            )
    return notes


def text_of(task: Prepared, document: Document) -> str:
    """What is looked for: the item's prompt, or what its file says, and its right answer."""
    query = task.task.settings.doc_to_decontamination_query
    if query:
        row = document.row
        try:
            return str(row[query]) if query in row else render_template(query, row)
        except ValueError:
            pass
    gold, choices = document.gold, document.choices
    right = choices[gold] if choices and isinstance(gold, int) and 0 <= gold < len(choices) else document.target
    return f"{document.question} {right}" if right != document.question else document.question


def corpus_texts(artifact: Artifact) -> Iterator[str]:
    """The texts of a corpus artifact, one at a time."""
    import pyarrow.parquet as pq

    for path in sorted(Path(artifact.path).glob("data/*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256, columns=["text"]):
            yield from (text for text in batch.column(0).to_pylist() if text)


def _core_text(row: dict[str, object]) -> str:
    gold, choices = row.get("gold", 0), row.get("choices") or row.get("context_options") or []
    right = choices[gold] if isinstance(choices, list) and isinstance(gold, int) and choices else ""
    asked = row.get("query", row.get("context", ""))
    return " ".join(map(str, (asked, right, row.get("continuation", ""))))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
