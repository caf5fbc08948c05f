"""The settings of pretraining: one dial for the model, a budget of tokens, and what to look at on the way."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmctl.recipe import InputOf, NoResult, Settings, StageSettings
from llmctl.train.settings import Moment, OptimizerSettings, TrainSettings

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
    tie_embeddings: bool | None = None
    """One table for the embedding and the head. The rule: one, but for `nanochat`; a second one is worth its weights in
    larger models only."""
    family: Literal["qwen3", "qwen2", "llama", "nanochat", "gpt2"] = "qwen3"
    """Which of the families that transformers loads. `qwen3` normalises queries and keys, which lets learning rates be
    higher; `nanochat` does too, with a plain MLP and bounded logits; `llama` and `qwen2` do not; `gpt2` is the model of
    2019. llama.cpp loads all but `nanochat`."""


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


class PretrainOptimizerSettings(OptimizerSettings):
    """Which optimizer moves which weights, and how far. 0 leaves a rate to the rule."""

    matrix_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of Muon. The rule: 0.02, at every size: its step is relative to the weights."""
    lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of AdamW: embeddings, head and vectors, or everything with `adamw`. The rule: 0.02 x sqrt(256 /
    width). 586 updates of 2,048 tokens at width 256 gave 1.892 bits a byte with 0.01, 1.874 with 0.02 and 1.882 with
    0.04. For `adamw` give it: 0.003 at width 256."""
    embedding_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of the embedding where the head is a table of its own (`model.tie_embeddings: false`), under
    `muon`. The rule: 0.3 x sqrt(256 / width), thirty times the head's, as nanochat has it: a row moves only when its
    token is there."""
    head_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of such a head. The rule: 0.01 x sqrt(256 / width)."""
    betas: tuple[Moment, Moment] = (0.9, 0.0)
    """AdamW's moments. The rule for the second, at 0: 0.95 at half a million tokens an update, nearer to 1 for smaller
    ones, whose gradients are noisier: 0.99 learned 1.836 bits a byte where 0.95 learned 1.864 (2,048 tokens an
    update)."""


class PretrainTrainSettings(TrainSettings):
    """How long, with what, and how carefully to train."""

    optimizer: PretrainOptimizerSettings = PretrainOptimizerSettings()
    """Which optimizer, and how far it steps."""
    spike: Annotated[float, Field(ge=0)] = 8.0
    """A step whose loss or gradient norm lies more than so many standard deviations above the last 128 is left out; 0
    leaves none out. 8 is far outside what text does to a healthy run: in the quickstart's it never happens."""
    parallel: Annotated[Literal["ddp", "fsdp"], NoResult()] = "ddp"
    """What several processes under `torchrun` share: with `ddp` each has the whole model and its own rows; with `fsdp`
    (FSDP2) a part of every weight, gradient and moment as well, which costs traffic and makes room for models that one
    GPU cannot hold. Checkpoints are the same, so a run may change from one to the other."""
    fp8: bool = False
    """The blocks' matrix products in 8 bits, on GPUs of compute capability 8.9 or more (L4, RTX 4090, H100): they go at
    up to twice the rate of bfloat16, with a little more noise. It pays for widths of 1,024 and more, compiled."""


class PretrainConfig(StageSettings):
    """Train a base model on tokens to continue text."""

    stage: ClassVar[str] = "pretrain"
    makes: ClassVar[str] = "model"

    tokens: Annotated[str, InputOf(("tokens",))]
    """What `llmctl tokenize` made."""
    init: Annotated[str, InputOf(("model",), files=True)] = ""
    """A model to go on from: of the workspace, a Hugging Face folder, or `hf:org/name`. It must have the tokens'
    tokenizer."""
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
    batch_tokens: Count = 0
    """Tokens an update. The rule, at 0: 4,096 x sqrt(tokens of the run / 1,000,000), to the next power of two: short
    runs need many updates more than quiet gradients; at ten billion tokens it comes to GPT-2's half a million."""
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
    price: Annotated[float, Field(ge=0), NoResult()] = 0.0
    """What an hour of the machine costs, in any currency: `--dry-run` then says what the run will."""
    samples: SampleSettings = SampleSettings()
    """What the model is asked to continue while it trains."""
    train: PretrainTrainSettings = PretrainTrainSettings()
    """How long, with what, and how carefully. `train.steps` 0 takes the budget above."""
