"""A document through the steps that look at one document at a time: one value a rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from llmctl.filter.decide import columns_of
from llmctl.filter.row import Row, Scorer
from llmctl.filter.scores import Measuring, Scored
from llmctl.formats.document import Document
from llmctl.parallel import tick

# Nothing behind these can be measured without a text.
_ENDS = ("url", "extract")


class Measurer:
    """Measures documents. With `all_rules` a document goes on behind its first failure, so that no value is missing."""

    def __init__(self, scorers: Sequence[Scorer], all_rules: bool) -> None:
        self.scorers, self.all_rules = scorers, all_rules
        self.columns = columns_of(scorers)

    def __call__(self, documents: Iterable[Document]) -> Scored:
        """The documents of a shard, measured."""
        measuring = Measuring()
        for document in documents:
            self._measure(Row(document), measuring)
            tick()
        return measuring.done(len(self.columns))

    def _measure(self, row: Row, measuring: Measuring) -> None:
        values, at, read, text = np.full(len(self.columns), np.nan), 0, row.size, row.text
        for scorer in self.scorers:
            rules = len(scorer.rules)
            values[at : at + rules] = scorer(row)
            if scorer.name == "extract":
                text = row.text
            must_end = not self.all_rules or scorer.name in _ENDS
            if must_end and any(r.fails(values[at + i : at + i + 1])[0] for i, r in enumerate(scorer.rules)):
                break
            at += rules
        measuring.add(row, read, text, values)
