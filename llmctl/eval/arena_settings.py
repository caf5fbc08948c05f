"""The settings of `eval --arena`."""

from __future__ import annotations

from pydantic import Field

from llmctl.endpoint.config import EndpointSettings
from llmctl.recipe import Settings


class ArenaSettings(Settings):
    """Who judges, and how games become ratings."""

    judge: str = "check"
    """Who decides which of two answers is better: a reward model or a chat model (of the workspace, or a folder);
    `check` (the item's known answer); `MODULE:FUNCTION`, a Python function of `(messages, answer)` that gives a number,
    the higher the better; `endpoint`, a server that speaks the OpenAI protocol; `person`, who is asked in the
    terminal."""
    endpoint: EndpointSettings = EndpointSettings()
    """Where the judge `endpoint` is."""
    judge_tokens: int = Field(512, ge=8)
    """The longest judgement of a chat model or an endpoint: it says why before it decides."""
    both_orders: bool = True
    """Judge every pair twice, with each answer shown first once. Half the work without it, but a judge that prefers the
    first answer then adds noise, and nobody can tell. A person sees each pair once, in a random order; judges that
    score answers one by one cannot have a preference."""
    length_control: bool = True
    """Rate also with what writing more is worth to the judge taken out (arXiv 2404.04475)."""
    bootstrap: int = Field(500, ge=20)
    """Resamples of the prompts for the intervals."""


def names_model(judge: str) -> bool:
    """Whether `judge` is a model rather than a rule, an address or a person."""
    return judge not in ("check", "person", "endpoint") and (":" not in judge or judge.startswith("hf:"))
