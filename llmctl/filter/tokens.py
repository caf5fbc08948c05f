"""How many tokens a text is, by the tokenizer that the settings name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from llmctl.errors import UserError


class TokenCounter:
    """Counts with a `tokenizer.json` (in a folder, or the file itself). Special tokens are not added."""

    def __init__(self, path: Path) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one process a core already
        from tokenizers import Tokenizer

        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise UserError("no tokenizer.json in it", str(path), "name a tokenizer of the workspace")
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as e:  # the library raises plain Exception
            raise UserError(f"it is no tokenizer: {e}", str(file)) from e

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(e.ids) for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]
