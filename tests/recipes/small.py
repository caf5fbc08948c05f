"""Every shipped recipe in a variant small enough for a test: the same steps, a few seconds each."""

from __future__ import annotations

QUICKSTART = [
    "crawl.max_pages=120",
    "tokenize.vocab_size=512",
    "pretrain.depth=1",
    "pretrain.context=128",
    "pretrain.train.steps=6",
    "lessons.mix={sums: 60, identity: 30, names: 40, lookup: 20, python: 20}",
    "lessons.heldout=6",
    "sft.train.steps=4",
    "sft.eval_items=6",
    "preferences.mix={preferences: 24}",
    "preferences.heldout=8",
    "rm.train.steps=3",
    "rl.train.steps=2",
    "rl.rollouts.prompts=4",
    "rl.rollouts.group=2",
    "rl.rollouts.max_new_tokens=12",
    "rl.eval_items=4",
    "eval.items=4",
    "eval.pairs=8",
    "eval.loss_tokens=2000",
    "eval.max_new_tokens=12",
    "answer.max_new_tokens=12",
]

YOUR_DATA = [
    "tokenize.vocab_size=512",
    "pretrain.depth=1",
    "pretrain.context=128",
    "pretrain.train.steps=4",
    "sft.train.steps=3",
    "sft.eval_items=4",
    "mine-answer.max_new_tokens=12",
]

FINEWEB = ["filter.workers=2"]

SITE = ["crawl.max_pages=60", "crawl.politeness.delay=0.0"]


def flags(sets: list[str]) -> list[str]:
    """The overrides as command-line words."""
    return [word for s in sets for word in ("-s", s)]
