"""Documents that hold items of evaluation sets, found by runs of words that both have (Brown et al. 2020,
arXiv:2005.14165, appendix C).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from llmctl.filter.config import DecontaminationSettings
from llmctl.filter.decontamination_sets import items_of
from llmctl.filter.minhash_text import simplify
from llmctl.filter.row import Row, Rule
from llmctl.filter.words import words
from llmctl.formats.word_runs import runs, word_hashes
from llmctl.parallel import whole_folder
from llmctl.workspace import Workspace

INDEX = "decontamination"
_SHOWN = 3  # items in the details


class Decontamination:
    """The scorer. Its value is how many different runs of evaluation items a document holds; the details name those
    items, by set and number, of which it holds most.
    """

    name = "decontamination"

    def __init__(self, settings: DecontaminationSettings, index: Index | None = None) -> None:
        """Without an index, `settings.sets` are the files to make one of, or the folder of one that `prepare` made."""
        self.settings = settings
        self.rules = (Rule("ngrams", settings.most),)
        if index is not None:
            self.index = index

    def __call__(self, row: Row) -> tuple[float]:
        """The number of runs."""
        found = self.index.found_in(row.body)
        if len(found):
            row.details["ngrams"] = ", ".join(self.index.names(found, _SHOWN))
        return (float(len(found)),)

    @cached_property
    def index(self) -> Index:
        """What is looked for."""
        only = Path(self.settings.sets[0])
        return Index.load(only) if only.name == INDEX else Index.of(map(Path, self.settings.sets), self.settings)


class Index:
    """The runs of words of all items: their 64-bit hashes, sorted, and the number of an item with each; with a table of
    bits that says of most others that they are none of them, 14 to 16 bytes a run.

    Nothing but hashes is compared: 10^12 runs of a corpus meet one of the 1.4 million of sixteen usual evaluation sets
    by chance with a probability of 8 %.
    """

    def __init__(
        self, ngram: int, hashes: np.ndarray, items: np.ndarray, sets: list[tuple[str, int]], whole: list[int]
    ):
        self.ngram, self.hashes, self.items = ngram, hashes, items
        self.sets = sets  # (name, number of its first item), in order
        self.whole = whole  # the lengths of shorter texts that are looked for as a whole
        # A bit for each value of a hash's first bits, set where there is one: a search through millions of hashes takes
        # 0.4 us a run, and this spares it to 15 in 16 at least.
        self._shift = np.uint64(64 - max(3, (16 * len(hashes)).bit_length()))
        marks = np.zeros(1 << int(64 - self._shift), bool)
        marks[hashes >> self._shift] = True
        self._bits = np.packbits(marks, bitorder="little")

    @classmethod
    def of(cls, files: Iterable[Path], settings: DecontaminationSettings) -> Index:
        """Of evaluation sets. UserError names what cannot be read."""
        hashes, items, sets, lengths, number = [], [], [], set(), 0
        for path in files:
            sets.append((path.name, number))
            for texts in items_of(path, settings.fields):
                for text in texts:
                    found = words(simplify(text))
                    n = min(len(found), settings.ngram)
                    if n < min(settings.min_words, settings.ngram):
                        continue
                    if n < settings.ngram:
                        lengths.add(n)
                    hashes.append(np.unique(runs(word_hashes(found), [n])[n]))
                    items.append(np.full(len(hashes[-1]), number, np.uint32))
                number += 1
        every, first = np.unique(np.concatenate([*hashes, np.zeros(0, np.uint64)]), return_index=True)
        numbers = np.concatenate([*items, np.zeros(0, np.uint32)])[first]
        return cls(settings.ngram, every, numbers, sets, sorted(lengths))

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        with whole_folder(folder) as making:
            np.save(making / "hashes.npy", self.hashes)
            np.save(making / "items.npy", self.items)
            about = {"ngram": self.ngram, "sets": self.sets, "whole": self.whole}
            (making / "about.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Index:
        """What `save` wrote. The hashes stay on disk, and in memory once for all processes."""
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        hashes, items = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hashes", "items"))
        return cls(about["ngram"], hashes, items, [(name, first) for name, first in about["sets"]], about["whole"])

    def found_in(self, text: str) -> np.ndarray:
        """The places in the index of the different runs that `text` holds, ascending."""
        if not len(self.hashes):
            return np.zeros(0, np.int64)
        there = runs(word_hashes(words(simplify(text))), [*self.whole, self.ngram])
        asked = np.concatenate(list(there.values()))
        slot = asked >> self._shift
        asked = asked[(self._bits[slot >> np.uint64(3)] >> (slot & np.uint64(7)).astype(np.uint8)) & 1 == 1]
        places = np.searchsorted(self.hashes, asked)
        places[places == len(self.hashes)] = 0
        return np.unique(places[self.hashes[places] == asked])

    def names(self, places: np.ndarray, most: int) -> list[str]:
        """`set#number` (from 1) of the items that have most of these runs, and `and N more`."""
        found = sorted(Counter(self.items[places].tolist()).items(), key=lambda item: (-item[1], item[0]))
        firsts = np.array([first for _, first in self.sets])
        named = []
        for item, _ in found[:most]:
            at = int(np.searchsorted(firsts, item, "right")) - 1
            named.append(f"{self.sets[at][0]}#{item - self.sets[at][1] + 1}")
        return [*named, *([f"and {len(found) - most} more"] if len(found) > most else [])]


def prepare(settings: DecontaminationSettings, workspace: Workspace, folder: Path) -> DecontaminationSettings:
    """The settings with `sets` an index that every process can load; makes it in `folder` where it is not there yet."""
    made = folder / INDEX
    if not made.exists():
        files = [w.path for w in (workspace.resolve(s, ("conversations", "corpus"), files=True) for s in settings.sets)]
        Index.of(files, settings).save(made)
    return settings.model_copy(update={"sets": [str(made)]})


def sets_hit(details: Iterable[str]) -> dict[str, int]:
    """From the details of documents: in how many of them each set was found; most hit first."""
    hits = Counter(name for d in details for name in {part.rpartition("#")[0] for part in d.split(", ")} - {""})
    return dict(hits.most_common())
