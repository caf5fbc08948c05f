"""The settings of `eval`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmctl.eval.arena_settings import ArenaSettings, names_model
from llmctl.eval.scaling_settings import ScalingSettings
from llmctl.recipe import InputOf, NoResult, StageSettings


class EvalConfig(StageSettings):
    """What is measured, on what, and how the models are asked."""

    stage: ClassVar[str] = "eval"
    makes: ClassVar[str] = "report"

    out: str = "eval"
    """The name of the report."""
    models: Annotated[list[str], InputOf(("model",), files=True)] = Field(min_length=1)
    """Models of the workspace, or Hugging Face folders. Two or more are compared on the same items; order them from
    before to after."""
    mode: Literal["tasks", "arena", "scaling"] = "tasks"
    """`tasks` measures each model on items with known answers; `arena` has a judge compare the models' answers and
    rates them; `scaling` fits loss against size and data to the runs of a sweep (`models` may then name a CSV file of
    runs)."""
    tasks: list[str] = []
    """What to measure: `bits_per_byte`, `pairs` (reward models), and kinds of held-out items (`sums`, `identity`,
    `names`, `lookup`, `python`, or any kind in the conversations). Empty: everything that applies."""
    conversations: Annotated[list[str], InputOf(("conversations",), files=True)] = []
    """Where held-out items come from: rows with an `answer` and a `check`. Empty: the held-out parts of what the models
    were trained on, by their lineage; where there is none, problems are made by code."""
    comparisons: Annotated[list[str], InputOf(("comparisons",), files=True)] = []
    """Held-out comparisons for reward models. Empty: those of their lineage."""
    tokens: Annotated[str, InputOf(("tokens",))] = ""
    """Bits per byte are measured on its validation split. Empty: the tokens of the models' lineage."""
    items: int = Field(100, ge=1)
    """Held-out items a kind. The 95 % interval of a score near one half is 20 points wide with 100, 10 with 400."""
    pairs: int = Field(500, ge=1)
    """Held-out pairs for each reward model."""
    loss_tokens: int = Field(100_000, ge=1)
    """Tokens of the validation split that bits per byte are measured on."""
    temperature: float = Field(0.0, ge=0)
    """0 takes the likeliest token each time: no luck in the score, and the same score tomorrow."""
    max_new_tokens: int = Field(256, ge=1)
    """The longest answer. One that is cut off there is usually counted wrong."""
    search: bool = True
    """Let the models search the library that comes with the conversations."""
    python: bool = True
    """Let the models run Python in the sandbox."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` is bf16 where the machine computes faster in it. It changes a few answers in a thousand."""
    batch_size: Annotated[int, NoResult()] = Field(64, ge=1)
    """Answers written at once: more are faster and need more memory. Also how much a kill can cost: whole batches are
    kept."""
    arena: ArenaSettings = ArenaSettings()
    """The arena's judge and ratings. Its prompts are the `conversations`, `items` of them; without any, the held-out
    items that the models' lineage has."""
    scaling: ScalingSettings = ScalingSettings()
    """The law of `scaling`."""
    fail_below: Annotated[list[str], NoResult()] = []
    """`TASK=VALUE` or `MODEL/TASK=VALUE`: where the score (of the last model, if none is named) is lower, the command
    ends with exit code 3. Shares are written as `0.8` or `80%`. For CI."""
    fail_above: Annotated[list[str], NoResult()] = []
    """The same for what should be low, such as `bits_per_byte=1.2`."""

    def inputs(self) -> list[tuple[str, Sequence[str], bool]]:
        """The judge is an input too, where it is a model."""
        found = super().inputs()
        if self.mode == "arena" and names_model(self.arena.judge):
            found.append((self.arena.judge, ("model",), True))
        return found
