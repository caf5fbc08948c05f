"""The settings of supervised fine-tuning."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from llmctl.recipe import InputOf, NoResult, StageSettings
from llmctl.train.settings import OptimizerSettings, ScheduleSettings, TrainSettings

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class SftOptimizerSettings(OptimizerSettings):
    """As in pretraining, with smaller steps."""

    matrix_lr: Annotated[float, Field(gt=0)] = 0.01
    """Learning rate of Muon: half of pretraining's."""
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Learning rate of AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """None: a few hundred steps of decay would only forget."""


class SftScheduleSettings(ScheduleSettings):
    """Up at once, then down all the way."""

    cooldown: Annotated[float, Field(ge=0, le=1)] = 0.8
    """The part of the steps in which the rate falls to `final`, linearly."""


class SftTrainSettings(TrainSettings):
    """How long, with what, and how carefully to train."""

    optimizer: SftOptimizerSettings = SftOptimizerSettings()
    """Which optimizer, and how far it steps."""
    schedule: SftScheduleSettings = SftScheduleSettings()
    """The learning rate over the run."""


class SftConfig(StageSettings):
    """Fine-tune a model on conversations; only the assistant's words are learned."""

    stage: ClassVar[str] = "sft"
    makes: ClassVar[str] = "model"

    model: Annotated[str, InputOf(("model",), files=True)]
    """A model of the workspace, or a Hugging Face folder."""
    conversations: Annotated[list[str], InputOf(("conversations",), files=True), Field(min_length=1)]
    """Conversations of the workspace, or JSON and JSONL files: messages, ShareGPT, Alpaca, Dolly, OASST trees, ..."""
    out: str = "chat"
    """The name of the model."""
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Times through the conversations, where `train.steps` gives no number of updates. More learn small sets better and
    begin to repeat them word by word."""
    context: Count = 0
    """Tokens a row; conversations are packed into rows and never see each other. 0 takes the model's context. A longer
    conversation is trained on up to the last answer that fits."""
    batch_tokens: Positive = 4096
    """Tokens an update, about: rows are filled to some 95 %."""
    rows_at_once: Positive = 32
    """Rows in one pass; a larger batch is worked off in several. Fewer use less memory."""
    heldout_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The part of the conversations that is kept for measuring where a source has no `heldout.jsonl`. It is chosen by a
    hash of the question, so the same question is never on both sides."""
    eval_every: Annotated[Count, NoResult()] = 50
    """Loss on held-out conversations every so many updates; 0 measures before and after only."""
    eval_items: Count = 100
    """Held-out questions with a known answer that are put to the model before and after; 0 asks none."""
    eval_new_tokens: Positive = 160
    """The longest answer to them, in tokens. An answer that is cut counts as wrong."""
    train: SftTrainSettings = SftTrainSettings()
    """How long, with what, and how carefully. `train.steps` 0 takes `epochs`."""
