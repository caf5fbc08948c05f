"""The settings of `eval`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from llmctl.eval.arena_settings import ArenaSettings, names_model
from llmctl.eval.gate import parse
from llmctl.eval.scaling_settings import ScalingSettings
from llmctl.recipe import InputOf, NoResult, StageSettings
from llmctl.recipe.functions import source


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
    """What to measure: `bits_per_byte`, `pairs` (reward models), task files (`mine.yaml`) and those that come along
    (`arc_easy`, `gsm8k`, ...), `core`, `weak_spots`, and kinds of held-out items (`sums`, `identity`, `names`,
    `lookup`, `python`, or any kind in the conversations). Empty: everything that the models' lineage has."""
    harness: list[str] = []
    """Tasks of lm-evaluation-harness (`hellaswag`, `arc_easy`, or its task files), run by it on our engine. Needs the
    package `lm_eval`."""
    core: str = ""
    """The folder of a CORE bundle (`core.yaml`, `eval_data`, `eval_meta_data.csv`) for the task `core`. Empty: a small
    one that comes along, whose figure compares with nothing but itself."""
    limit: int = Field(0, ge=0)
    """The first items only, of task files, CORE and the harness; 0 asks all, which published scores need."""
    num_fewshot: int = Field(-1, ge=-1)
    """Examples before each item of a task; -1 is as many as its file says. Scores with others do not compare."""
    apply_chat_template: bool = False
    """Ask tasks as conversations, and with the tools. For models that were taught to chat; base models lose by it."""
    contamination: bool = True
    """Look for the tasks' items in the corpus that the models were trained on. It reads the whole corpus once."""
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

    @field_validator("fail_below", "fail_above")
    @classmethod
    def _are_bounds(cls, texts: list[str]) -> list[str]:
        for text in texts:
            parse(text)
        return texts

    def inputs(self) -> list[tuple[str, Sequence[str], bool]]:
        """The judge is an input too, a model or the file of a function; so are the files of tasks."""
        found = super().inputs()
        for task in self.tasks:
            if task.endswith((".yaml", ".yml")):
                from llmctl.eval.task_data import files_of

                found += [(str(path), (), True) for path in files_of(task)]
        if self.core:
            found.append((self.core, (), True))
        if self.mode == "arena" and names_model(self.arena.judge):
            found.append((self.arena.judge, ("model",), True))
        elif self.mode == "arena" and ":" in self.arena.judge and (file := source(self.arena.judge)):
            found.append((str(file), (), True))
        return found
