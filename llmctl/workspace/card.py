"""What every model card ends with: figures of the training, the data's lineage, evaluations, and limits.

The stage that makes a model writes what is special about it; the rest is the same for all and is put below when the
artifact is sealed, since only then all figures are known. Scores come later than the model, and an artifact does not
change: a card points to them, and `llmctl export` writes them in. No times here: equal models keep equal digests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.workspace.artifact import KINDS, Artifact, Foreign
from llmctl.workspace.files import write_atomic

_EVALUATION = "## Evaluation"
_FIGURES = {
    "parameters": "parameters",
    "updates": "updates",
    "steps": "updates",
    "pairs": "pairs trained on",
    "tokens": "tokens trained on",
    "train_tokens": "tokens trained on",
    "trained_tokens": "tokens of answers trained on",
    "epochs": "times through the data",
    "flops": "floating-point operations",
    "loss_first": "training loss, first step",
    "loss_last": "training loss, last step",
    "heldout_loss_before": "loss on held-out answers, before",
    "heldout_loss_after": "loss on held-out answers, after",
    "bits_per_byte_before": "bits per byte on held-out text, before",
    "bits_per_byte_after": "bits per byte on held-out text, after",
}
_LIMITS = {
    "pretrain": "It continues text; it was not taught to answer, to follow instructions, or to refuse.",
    "rm": "Its scores compare replies to one prompt. They are not a measure of truth, and what is trained against them "
    "will find what they overlook: length, phrases, tone.",
}
_LIMIT = "It was taught a narrow set of things, and answers questions outside of it fluently and wrongly."
_ALWAYS = (
    "It repeats what its data says, true or not, and knows nothing that is not in it.",
    "It has had no safety training beyond what its data holds. Do not put it before the public without a filter.",
    "Scores speak about the items that were asked; for languages and subjects outside of the data they say nothing.",
)


def finish_card(
    folder: Path, stage: str, seed: int, inputs: Sequence[Artifact | Foreign], figures: Mapping[str, Any]
) -> None:
    """Put the common sections below `folder`'s README.md, if it has one and they are not there yet."""
    path = folder / "README.md"
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    if f"\n{_EVALUATION}\n" not in text:
        write_atomic(path, text.rstrip() + "\n\n" + _sections(stage, seed, inputs, figures))


def with_scores(card: str, scores: str) -> str:
    """`card` with `scores` (Markdown) in the place of what its evaluation section says."""
    head, found, rest = card.partition(f"\n{_EVALUATION}\n")
    if not found:
        return f"{card.rstrip()}\n\n{_EVALUATION}\n\n{scores.strip()}\n"
    _, more, after = rest.partition("\n## ")
    return f"{head}{found}\n{scores.strip()}\n" + (f"\n## {after}" if more else "")


def _sections(stage: str, seed: int, inputs: Sequence[Artifact | Foreign], figures: Mapping[str, Any]) -> str:
    rows = [f"| {label} | {_shown(figures[k])} |" for k, label in _FIGURES.items() if figures.get(k) is not None]
    rows += [row for found in (figures.get("headline"), *(figures.get("more") or [])) for row in _changed(found)]
    rows.append(f"| seed | {seed} |")
    limits = "\n".join(f"- {line}" for line in (_LIMITS.get(stage, _LIMIT), *_ALWAYS))
    return (
        f"## Training\n\nMade by `llmctl {stage}`. Every setting and digest is in `manifest.json`.\n\n"
        "| | |\n|---|---|\n" + "\n".join(rows) + "\n\n## Data\n\nWhat it was made of, nearest first:\n\n"
        + "\n".join(_lineage(inputs))
        + f"\n\n{_EVALUATION}\n\nScores are kept in the reports of the workspace: `llmctl show` lists them with the "
        "model, and `llmctl export` writes them here.\n\n## Limits\n\n" + limits + "\n"
    )  # fmt: skip


def _changed(found: Any) -> Iterator[str]:
    """A row for a figure that the stage measured before and after, unless it has one already."""
    if not isinstance(found, dict) or not found.get("label") or str(found["label"]).startswith("bits per byte"):
        return
    unit = f" {found['unit']}" if found.get("unit") else ""
    after = f"{_shown(found.get('after'))}{unit}"
    before = found.get("before")
    yield (
        f"| {found['label']} | " + (after if before is None else f"{_shown(before)}{unit} before, {after} after") + " |"
    )


def _lineage(inputs: Sequence[Artifact | Foreign], depth: int = 0) -> Iterator[str]:
    """A line an ancestor, indented below what was made of it."""
    for made in inputs:
        pad = "  " * depth
        if isinstance(made, Foreign):
            yield f"{pad}- {made.name or made.path.name} (from outside the workspace)"
            continue
        out = str(made.figures.get("out") or "")
        stage = made.manifest.get("stage")
        yield f"{pad}- {made.kind} `{made.name}`, by `llmctl {stage}`" + (f": {out}" if out else "")
        yield from _lineage(list(_parents(made)), depth + 1)


def _parents(made: Artifact) -> Iterator[Artifact | Foreign]:
    """What an artifact was made of, as far as it is still there as it was."""
    for reference in made.manifest.get("inputs") or []:
        kind, name = str(reference.get("kind")), str(reference.get("name"))
        if kind not in KINDS:
            yield Foreign(Path(name), "", kind, Path(name).name if kind == "file" else name)
            continue
        parent = Artifact(kind, name, made.path.parent.parent / kind / name)
        try:
            if parent.digest == reference.get("digest"):
                yield parent
        except UserError:
            continue


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
