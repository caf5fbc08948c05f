"""The settings of pretraining: one dial for the model, a budget of tokens, and what to look at on the way."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmctl.recipe import InputOf, NoResult, Settings, StageSettings
from llmctl.train.settings import TrainSettings

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class ModelSettings(Settings):
    """The shape where it should differ from what `depth` gives; 0 leaves a size to the rule."""

    width: Count = 0
    """Size of the hidden state. The rule: 64 a layer."""
    head_dim: Count = 0
    """Size of an attention head. The rule: 64, and 128 from depth 12 on."""
    kv_heads: Count = 0
    """Key and value heads; fewer than the heads of the queries save cache memory. The rule: as many."""
    mlp_width: Count = 0
    """Size inside the MLP. The rule: 8/3 of the width, in steps of 64."""
    tie_embeddings: bool = True
    """One table for the embedding and the head. A second one is worth its weights in larger models only."""
    family: Literal["qwen3", "llama"] = "qwen3"
    """`qwen3` normalises queries and keys, which lets learning rates be higher; `llama` does not."""


class SampleSettings(Settings):
    """What the model is asked to continue while it trains."""

    every: Annotated[Count, NoResult()] = 20
    """A sample of each prompt every so many updates, as in the GPT-2 reproductions; 0 takes none. With the defaults and
    a small model it takes a third of a second."""
    prompts: Annotated[list[str], NoResult()] = ["The", "This is", "When"]
    """What to continue."""
    new_tokens: Annotated[Positive, NoResult()] = 24
    """How far."""
    temperature: Annotated[float, Field(ge=0), NoResult()] = 0.8
    """How freely; 0 always takes the likeliest token."""


class PretrainTrainSettings(TrainSettings):
    """How long, with what, and how carefully to train."""

    spike: Annotated[float, Field(ge=0)] = 8.0
    """A step whose loss or gradient norm lies more than so many standard deviations above the last 128 is left out; 0
    leaves none out. 8 is far outside what text does to a healthy run: in the quickstart's it never happens."""


class PretrainConfig(StageSettings):
    """Train a base model on tokens to continue text."""

    stage: ClassVar[str] = "pretrain"
    makes: ClassVar[str] = "model"

    tokens: Annotated[str, InputOf(("tokens",))]
    """What `llmctl tokenize` made."""
    init: Annotated[str, InputOf(("model",), files=True)] = ""
    """A model of the workspace, or a Hugging Face folder, to go on from. It must have the tokens' tokenizer."""
    out: str = "base"
    """The name of the model."""
    depth: Positive = 4
    """The one dial: layers, and from them width, heads and MLP. 4 is 5 million parameters or so, right for minutes on a
    CPU; parameters grow with its cube. Not used with `init`."""
    model: ModelSettings = ModelSettings()
    """The shape, where it should differ from the rule. Not used with `init`."""
    context: Positive = 256
    """Tokens a row: how far back the model learns to look. Attention costs its square, and a longer one sees fewer rows
    for the same tokens."""
    batch_tokens: Positive = 4096
    """Tokens an update. Small for short runs, which need many updates more than quiet gradients; 500,000 is usual for
    runs of billions."""
    rows_at_once: Positive = 32
    """Rows in one pass; a larger batch is worked off in several. Fewer use less memory."""
    tokens_per_parameter: Annotated[float, Field(gt=0)] = 20.0
    """The budget where `train.steps` gives none: the ratio at which a model of this size is the best use of the
    computation (arXiv 2203.15556)."""
    max_epochs: Annotated[float, Field(gt=0)] = 4.0
    """But no more than this many times through the data: up to four, repeated text is nearly as good as new
    (arXiv 2305.16264)."""
    mask_documents: bool = False
    """Keep attention inside each document of a row. Costs speed on a CPU; nanochat measured 0.0002 bits a byte for
    long documents. Worth a try for short ones."""
    eval_every: Annotated[Count, NoResult()] = 100
    """Bits a byte on held-out text every so many updates; 0 measures before and after only."""
    eval_tokens: Count = 65536
    """On how many held-out tokens; 0 takes all."""
    samples: SampleSettings = SampleSettings()
    """What the model is asked to continue while it trains."""
    train: PretrainTrainSettings = PretrainTrainSettings()
    """How long, with what, and how carefully. `train.steps` 0 takes the budget above."""
