"""The methods, as presets of the switches in `MethodSettings`: what each paper does, as data. No torch here."""

from __future__ import annotations

from typing import Any

# Every switch that a method sets otherwise than GRPO. A person's own setting of a switch wins over these.
PRESETS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr-grpo": {"scale": False, "normalise": "constant"},
    "dapo": {"normalise": "token", "clip_high": 0.28, "dynamic_sampling": 2, "overlong": 16},
    # The ratio is that of the whole reply to the power of one over its length: so near 1 that its bounds are so tight.
    # With one update they would never act, and it would be GRPO.
    "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "updates": 2},
    "rloo": {"advantage": "leave-one-out", "scale": False, "normalise": "sum", "clip": False},
    "reinforce": {"advantage": "batch", "scale": False, "normalise": "sum", "clip": False},
    "ppo": {
        "advantage": "gae",
        "scale": False,
        "normalise": "token",
        "kl": "k1",
        "kl_in": "reward",
        "beta": 0.05,
        "kl_target": 6.0,
        "updates": 4,
    },
    "expert-iteration": {"normalise": "token"},
    "best-of-n": {},
    # Replies to one problem share most of their tokens, and what DPO takes from the worse one it takes from the better
    # one too. With 1, Iterative RPO's weight, sums of 44 tokens did not improve, with 5 they did (docs/LOG.md).
    "dpo": {"beta": 0.1, "sft_weight": 5.0},
}
METHODS = tuple(PRESETS)
GROUPED = ("group", "leave-one-out")
"""Advantages that compare a reply with others to the same prompt."""
