"""fastText models (Joulin et al. 2016, arXiv:1607.01759), read and asked quietly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmctl.errors import UserError

LABEL = "__label__"
Scores = dict[str, float]


def load(path: Path | str, fix: str = "") -> Any:
    """The model at `path`. UserError where there is none."""
    import fasttext

    try:
        fasttext.FastText.eprint = lambda *_: None  # a warning about its own past interface
        model = fasttext.load_model(str(path))
    except (ValueError, RuntimeError, MemoryError) as e:
        raise UserError(f"it is no fastText model: {e}", str(path), fix) from e
    if not model.get_labels()[:1] or not model.get_labels()[0].startswith(LABEL):
        raise UserError("the model was not trained to tell labels apart", str(path), fix)
    return model


def scorer(model: Any) -> Callable[[str], Scores]:
    """A function from one line of text to the probability of every label, without the labels' prefix."""
    # Not model.predict: it makes a NumPy array in a way that NumPy 2 refuses in the original package; this is what it
    # calls, and gives the scores as Python numbers.
    ask = model.f.predict

    def scores(line: str) -> Scores:
        # The scores of the compressed softmax may be a hair above 1.
        return {label.removeprefix(LABEL): min(score, 1.0) for score, label in ask(line + "\n", -1, 0.0, "strict")}

    return scores


def one_line(text: str) -> str:
    """`text` as fastText reads it: a line ends it, and a word that looks like a label would be taken for one."""
    return text.replace("\n", " ").replace(LABEL, "_label_")
