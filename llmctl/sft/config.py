"""The settings of supervised fine-tuning."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from llmctl.recipe import InputOf, NoResult, Settings, StageSettings
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


class LoraSettings(Settings):
    """Train small adapters beside frozen matrices (arXiv:2106.09685); they are merged when the model is saved."""

    rank: Positive = 16
    """Rank of the adapters. More hold more of what is new; a few hundred examples need no more than 8."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """What an adapter adds is multiplied by alpha / rank. Twice the rank is the usual choice; doubling it is much like
    doubling the learning rate."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The part of an adapter's inputs that is left out at random, against learning small sets by heart."""
    targets: list[str] = []
    """The layers of the blocks that get one (`q_proj`, `v_proj`, `up_proj`, ...). Empty is all of them: attention alone
    learns less (thinkingmachines.ai/blog/lora)."""
    tables: bool | Literal["auto"] = "auto"
    """Whether the embeddings and the head are trained as a whole besides. `auto` does so where chat tokens had to be
    added to the vocabulary: no adapter reaches their rows."""


class SftConfig(StageSettings):
    """Fine-tune a model on conversations; only the assistant's words are learned."""

    stage: ClassVar[str] = "sft"
    makes: ClassVar[str] = "model"

    model: Annotated[str, InputOf(("model",), files=True)]
    """A model of the workspace (base or chat), a Hugging Face folder, or `hf:org/name`. One with a ChatML or Llama 3
    tokenizer is trained in that format, any other in ours."""
    conversations: Annotated[list[str], InputOf(("conversations",), files=True), Field(min_length=1)]
    """Conversations of the workspace, files (messages, ShareGPT, Alpaca, Dolly, UltraChat, OASST trees, text in a chat
    template, ...), or `hf:org/name` of a data set."""
    trees: Literal["best", "all"] = "best"
    """Of a tree of messages (OASST) the path of the best-ranked replies, or every path from its root to a leaf. All are
    many times more, and most of them what people liked less."""
    values: dict[str, str] = {}
    """What stands for names in double braces: `values: {name: Wren, author: Ada}` makes Wren of `{{name}}`."""
    unanswered: Literal["error", "skip"] = "error"
    """A conversation in which no assistant answers anybody has nothing to train on: a mistake in the data, or left out
    and counted."""
    answer_first: Literal["keep", "drop"] = "keep"
    """What becomes of answers that state their result before the reasoning that leads to it. They are counted and the
    first ones shown in any case: they teach to guess, since a model computes token by token."""
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
    lora: LoraSettings | None = None
    """Adapters instead of the whole model, say `lora: {rank: 16}`: a fraction of the optimizer's memory, and less is
    forgotten; a new field of knowledge is learned less well. `train.optimizer.name` is then `adamw` unless it is given:
    that is what adapters are published with, and Muon, each at its best rate, came to the same held-out loss (2.919, a
    model of 31,000 parameters taught the contrary in 40 updates)."""
    train: SftTrainSettings = SftTrainSettings()
    """How long, with what, and how carefully. `train.steps` 0 takes `epochs`."""

    @model_validator(mode="after")
    def _adamw_for_adapters(self) -> SftConfig:
        optimizer = self.train.optimizer
        if self.lora and "name" not in optimizer.model_fields_set:
            chosen = optimizer.model_copy(update={"name": "adamw"})
            self.train = self.train.model_copy(update={"optimizer": chosen})
        return self
