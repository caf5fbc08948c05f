"""What a finished reward model says of itself: the manifest's figures and the model card."""

from __future__ import annotations

from typing import Any

from llmctl.rm.config import RmConfig
from llmctl.rm.data import Data
from llmctl.rm.measure import Scores, accuracy, by_kind, calibration, length_bias
from llmctl.train.loop import Outcome


def figures(
    config: RmConfig, data: Data, outcome: Outcome, scores: Scores, log: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the manifest says. `scores` are those of the held-out rankings after training; those of before are in the
    log, which a run that was taken up again has too.
    """
    pairs = sum(len(r.pairs) for r in data.train)
    found: dict[str, Any] = {
        "in": f"{config.model}, {len(data.train):,} comparisons, {pairs:,} pairs",
        "comparisons": len(data.train),
        "pairs": pairs,
        "ties": sum(len(r.ties) for r in data.train),
        "left_out": left_out(data),
        "steps": outcome.steps,
        "loss": outcome.loss,
        "train_tokens": outcome.tokens,
        "train_seconds": round(outcome.seconds, 1),
    }
    if not data.heldout:
        last = round(100 * float(outcome.last.get("accuracy", 0.0)), 1)
        head = {"label": "training pairs ranked right", "before": None, "after": last, "unit": "%"}
        return found | {"headline": head, "out": f"{outcome.steps:,} steps, nothing held out to measure on"}
    return found | measured(data, scores, log)


def left_out(data: Data) -> dict[str, Any]:
    """How many comparisons were not used, by reason."""
    return {
        "unreadable": len(data.unreadable),
        "reasons": dict(data.reasons),
        "replies": dict(data.replies),
        "tied": data.tied,
        "too_long": data.too_long,
        "repeated": data.repeated,
        "held_out_prompt": data.overlap,
    }


def measured(data: Data, scores: Scores, log: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures on held-out pairs."""
    after = accuracy(data.heldout, scores)
    before = next((row for row in log if "heldout_accuracy" in row), {})
    first = before.get("heldout_accuracy")
    head = {
        "label": "held-out pairs ranked right",
        "before": None if first is None else round(100 * first, 1),
        "after": round(100 * after["accuracy"], 1),
        "unit": "%",
    }
    return {
        "headline": head,
        "out": f"right on {after['accuracy']:.1%} of {after['pairs']:,} held-out pairs "
        f"({after['low']:.1%} to {after['high']:.1%})",
        "heldout": after,
        "heldout_before": {k.removeprefix("heldout_"): v for k, v in before.items() if k.startswith("heldout_")},
        "by_kind": by_kind(data.heldout, scores),
        "calibration": calibration(data.heldout, scores),
        **length_bias(data.heldout, scores),
    }


def card(config: RmConfig, found: dict[str, Any]) -> str:
    """The model card's body."""
    form = "Plackett-Luce" if config.loss.form == "plackett-luce" else "Bradley-Terry"
    over = "replies like those it was measured on"
    over = f"answers of `{config.model}`" if config.scale.over == "model" else over
    return f"""\
A reward model: scores a reply, given the conversation before it. Trained from `{config.model}` on {found["pairs"]:,}
pairs of {found["comparisons"]:,} comparisons by the {form} loss; {found["out"]}.

A score is a number for a whole conversation, rendered with the chat template and read at its last token. The better of
two replies is the one with the higher score, and sigmoid(difference) is the chance that it is preferred. The reward
{found["reward_gain"]:.4f} * score {found["reward_bias"]:+.4f} (`reward_gain` and `reward_bias` in `config.json`) has a
mean of 0 and a standard deviation of 1 over {over}.

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForSequenceClassification.from_pretrained(path)
ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
score = model(**ids).logits[0, 0]
reward = model.config.reward_gain * score + model.config.reward_bias
```
"""
