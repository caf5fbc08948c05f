"""Held-out questions with known answers, put to the model as a person would."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import ASSISTANT, parts, render_prompt
from llmctl.sft.data import Data, Row
from llmctl.tools.python import run_python
from llmctl.tools.search import SearchIndex
from llmctl.tools.toolbox import Toolbox
from llmctl.verify import check


class Questions:
    """Asks the same questions each time, greedily, with the tools that the conversations use."""

    def __init__(self, engine: Engine, data: Data, items: int, new_tokens: int) -> None:
        self.engine = engine
        self.rows = spread([row for row in data.heldout if is_question(row)], items)
        self.prompts = [render_prompt(row["messages"][:-1], engine.tokenizer) for row in self.rows]
        self.sampling = Sampling(new_tokens, temperature=0.0)
        self.tools = toolbox(self.rows, data.library)

    def ask(self) -> dict[str, Any]:
        """The shares (0 to 1) that are right and in form, over all and by kind, and one answer of each kind."""
        if not self.rows:
            return {}
        samples = [many[0] for many in self.engine.generate(self.prompts, self.sampling, tools=self.tools)]
        by_kind: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
        shown: dict[str, dict[str, Any]] = {}
        for row, sample in zip(self.rows, samples, strict=True):
            verdict = check(row, sample.text, run_python)
            ended = sample.finish == "stop"
            kind = str(row.get("kind") or "other")
            by_kind[kind].append((verdict.correct and ended, verdict.formatted and ended))
            question = _text(row["messages"][-2]["content"]) if len(row["messages"]) > 1 else ""
            shown.setdefault(kind, {"question": question, "reply": sample.text, "right": verdict.correct and ended})
        verdicts = [v for many in by_kind.values() for v in many]
        return {
            "heldout_right": _mean([v[0] for v in verdicts]),
            "heldout_formatted": _mean([v[1] for v in verdicts]),
            "right_by_kind": {kind: _mean([v[0] for v in many]) for kind, many in sorted(by_kind.items())},
            "answers": shown,
        }


def is_question(row: Row) -> bool:
    """Whether the row ends with an answer that can be checked."""
    return bool(row.get("check")) and row.get("answer") is not None and row["messages"][-1]["role"] == ASSISTANT


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` rows, as many of each kind as there are, in the order of the file."""
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_kind[str(row.get("kind"))].append(row)
    deepest = max(map(len, by_kind.values()), default=0)
    turns = (many[i] for i in range(deepest) for many in by_kind.values() if i < len(many))
    return [row for row, _ in zip(turns, range(count), strict=False)]


def toolbox(rows: Sequence[Row], library: Sequence[tuple[str, str]]) -> Toolbox | None:
    """The tools that the answers of `rows` call."""
    called = {kind for row in rows for kind, _ in parts(row["messages"][-1]["content"])}
    search = SearchIndex.build(library) if library and "search" in called else None
    python = "python" in called
    return Toolbox(search, python) if search is not None or python else None


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _text(content: Any) -> str:
    return "".join(text for _, text in parts(content))
