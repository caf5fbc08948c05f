"""What the filter's tests share: rows made of text, a step run over one, and filters that a person might write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from llmctl.console import Console
from llmctl.filter.config import FilterConfig
from llmctl.filter.row import Row, Scorer
from llmctl.filter.stage import run
from llmctl.formats.document import Document
from llmctl.workspace import Artifact, Workspace

# Every rule passes on this.
PROSE = (
    "The committee met on Tuesday to talk about the bridge that crosses the river near the old mill.\n"
    "Nobody knew who had built it, although the mayor claimed to have seen a drawing in the archive.\n"
    "A farmer with two dogs said that heavy carts should take another road until somebody repairs it.\n"
    "His neighbour wanted to know how much such repairs would cost and whether the county would help.\n"
    "They agreed to write a letter, which the schoolteacher will read aloud on market day next week.\n"
    "After the meeting everyone walked home through the rain, and the dogs ran ahead of their master."
)


def row(text: str, **fields: Any) -> Row:
    return Row(Document(id="x", text=text, **fields))


def verdict(step: Scorer, text: str) -> str:
    """The first rule that drops `text`, or "" where it passes."""
    values = measured(step, text)
    return next((rule.name for rule in step.rules if rule.fails(np.array([values[rule.name]]))[0]), "")


def measured(step: Scorer, text: str) -> dict[str, float]:
    """Every value that the step measures."""
    return dict(zip([rule.name for rule in step.rules], map(float, step(row(text))), strict=True))


def write_jsonl(path: Path, texts: list[str]) -> Path:
    import json

    path.write_text("".join(json.dumps({"id": f"d{i}", "text": t}) + "\n" for i, t in enumerate(texts)))
    return path


def corpus_of(source: Path | str, workspace: Workspace, **settings: Any) -> Artifact:
    return run(FilterConfig.model_validate({"pages": str(source), **settings}), workspace, Console(quiet=True))


def table(artifact: Artifact, part: str = "data") -> list[dict[str, Any]]:
    return [r for name in artifact.files(".parquet") if name.startswith(part)
            for r in pq.read_table(artifact.file(name)).to_pylist()]  # fmt: skip
