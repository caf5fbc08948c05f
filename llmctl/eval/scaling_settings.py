"""The settings of `eval --scaling`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llmctl.recipe import Settings


class ScalingSettings(Settings):
    """How the law is fitted, what it is checked on, and what it is asked."""

    loss: Literal["bits_per_byte", "loss"] = "bits_per_byte"
    """What is fitted: `bits_per_byte` on held-out text at the end of the run, or `loss`, of its last training step in
    nats a token (noisier, and not comparable between tokenizers). The law has the same form for both."""
    embeddings: bool = True
    """Count the embeddings among the parameters, as Chinchilla did. In models of a few million they are a large part,
    and leaving them out makes small models look better than larger ones will be (arXiv 2406.12907)."""
    hold_back: str = ""
    """A run to leave out of the fit and predict: its name, or `largest` (by N x D). The honest check of an
    extrapolation."""
    predict: list[str] = []
    """Runs to predict, as `N:D`, such as `1e8:2e9`."""
    budget: list[float] = []
    """Floating-point operations (6 N D) to find the best N and D for. Empty: 10 and 100 times the largest run."""
    bootstrap: int = Field(400, ge=20)
    """Resamples of the runs for the intervals. More make the ends of an interval steadier; 400 take a second."""
