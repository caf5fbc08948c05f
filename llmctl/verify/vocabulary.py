"""The words of the questions about letters: the same real and made-up ones as those of the python tool's questions.

A word is held out everywhere or nowhere, since the key of the split is the word alone.
"""

from __future__ import annotations

from random import Random

from llmctl.verify import invention
from llmctl.verify.python_tool import WORDS


def word(rng: Random) -> str:
    """A real word, or about half the time one that nobody can have learned by heart."""
    return rng.choice(WORDS) if rng.random() < 0.5 else invention.word(rng)
