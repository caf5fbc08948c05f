"""The settings of the kinds whose words come from a model: knowledge, chat and distill."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from llmctl.recipe import Settings
from llmctl.verify import KINDS

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0, le=2)]


class KnowledgeOptions(Settings):
    """What the model knows, found out by asking it."""

    passage: tuple[int, int] = (120, 1200)
    """Shortest and longest passage, in characters. One question is written about each."""
    samples: Positive = 5
    """How often the model is asked the same question. Its replies are the evidence: 5 tell "always" from "never"."""
    temperature: Temperature = 0.7
    """At 0 all replies would be the same, and a guess would look like knowledge."""
    max_new_tokens: Positive = 64
    """The longest reply of the model."""
    judge: Literal["contains", "model", "person"] = "contains"
    """Who says whether a reply agrees with the source. `contains`: it has the words of the answer and does not refuse.
    `model`: the teacher or the endpoint is asked. `person`: you, in the terminal, once for each different reply."""
    known: Share = 0.8
    """From this share of agreeing replies on, the model knows: the answer is taught."""
    unknown: Share = 0.2
    """Up to this share it does not: "I don't know" is taught. What lies between is left out."""
    refusals: Share = 0.5
    """At most this share of the rows refuse, as long as there are others; a model that is taught little else refuses
    everything."""
    made_up: Share = 0.2
    """How many questions about made-up names are added, as a share of the questions that are asked."""

    @field_validator("passage")
    @classmethod
    def _possible(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 20 <= value[0] <= value[1] <= 20_000:
            raise ValueError("should be [shortest, longest], between 20 and 20000 characters")
        return value


class ChatOptions(Settings):
    """Conversations of which a model writes both sides."""

    topics: list[str] = []
    """What the conversations are about; empty takes a list of some fifty everyday topics. With a corpus they are about
    its passages instead."""
    turns: tuple[int, int] = (1, 3)
    """Fewest and most questions in a conversation. Each further one costs two requests, and longer ones."""
    assistant: str = "You are a helpful assistant. Answer clearly and briefly. Where you do not know, say so."
    """What the teacher is told to be when it answers; it does not stand in the data."""
    temperature: Temperature = 0.9
    """Of both sides. Lower makes conversations alike, which are then left out as such."""
    max_new_tokens: Positive = 512
    """The longest answer; one that is cut makes the conversation unusable."""
    banned: list[str] = ["as an ai language model", "as a large language model", "i cannot browse"]
    """A conversation with one of these in an answer is left out: the teacher's words about itself."""
    alike: Share = 0.7
    """A conversation whose first question shares this much of its word triples (Jaccard) with an earlier one is left
    out; self-instruct does the same by ROUGE-L."""

    @field_validator("turns")
    @classmethod
    def _possible(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1] <= 20:
            raise ValueError("should be [fewest, most], between 1 and 20")
        return value


class DistillOptions(Settings):
    """Solutions that a teacher, or the model itself, writes, and that a check finds right."""

    task: str = "sums"
    """The kind of problems, made by code with the settings of that name. `problems` takes those of an artifact."""
    samples: Positive = 4
    """Solutions asked for each problem. More find solutions of harder problems: with one right in ten, 4 samples solve
    a third of them and 16 four fifths."""
    temperature: Temperature = 0.7
    """0 makes all samples of a problem the same."""
    max_new_tokens: Positive = 1024
    """The longest solution. One that is cut is left out."""
    instruction: str | None = None
    """Said to the teacher before the problem, and not kept. By default an endpoint is told to reason step by step and
    how to state its answer; a workspace model, which was trained on such problems, is told nothing."""
    keep: Literal["shortest", "all", "first"] = "shortest"
    """Which right solutions of a problem are kept: the `shortest`, which wastes least tokens; `all` that differ, which
    teaches that there are several ways; the `first`."""
    most: Positive = 4
    """At most so many of a problem, for `all`: otherwise easy problems crowd out the hard ones."""
    formatted: bool = False
    """Keep only what also has the taught form."""
    form: Literal["keep", "think", "answer"] = "keep"
    """How solutions are written. `keep`: as they came, a reasoning model's thoughts in <think> tags before them.
    `think`: all of the reasoning in <think> tags and the bare answer in <answer> tags. `answer`: without thoughts."""
    alike: Share = 0.9
    """A solution that shares this much of its word triples with another of the same problem is left out."""

    @field_validator("task")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in KINDS:
            raise ValueError(f"no task {value!r}; there are {', '.join(KINDS)}")
        return value
