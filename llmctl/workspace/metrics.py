"""`metrics.jsonl`: one JSON object a step, appended as it happens, rewound exactly on resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmctl.workspace.files import json_safe, write_atomic


class Metrics:
    """The step log of one artifact under construction."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def log(self, **values: Any) -> None:
        """Append one row. NaN and infinity become null."""
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(json_safe(values), ensure_ascii=False) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Every whole row; a last line cut short by a kill is left out."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").split("\n"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return [row for row in found if isinstance(row, dict)]

    def rewind(self, step: int) -> None:
        """Drop the rows whose `step` is after `step`: the checkpoint a run resumes from has not seen them."""
        if not self.path.exists():
            return
        kept = [row for row in self.rows() if row.get("step", 0) <= step]
        write_atomic(self.path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))
