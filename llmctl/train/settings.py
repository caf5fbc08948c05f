"""The settings that every training stage shares. No torch here: a recipe is checked without loading it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmctl.recipe.settings import NoResult, Settings

Moment = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """Which optimizer moves which weights, and how far."""

    name: Literal["muon", "adamw"] = "muon"
    """`muon` for the matrices inside the blocks and AdamW for the rest, or `adamw` for everything. Muon needs about two
    thirds of the steps for the same loss (github.com/KellerJordan/modded-nanogpt, track 3)."""
    matrix_lr: Annotated[float, Field(gt=0)] = 0.02
    """Learning rate of Muon. Its update has singular values near 1, so the rate is the relative size of a step and
    carries over between widths; 0.02 is the published value, and 0.04 gained nothing (2.16 for 2.15, see `lr`)."""
    lr: Annotated[float, Field(gt=0)] = 0.01
    """Learning rate of AdamW: embeddings, head and vectors, or everything with `adamw` (0.003 suits that better). 120
    updates of 2,048 tokens at depth 3 gave 2.23 bits a byte with 0.003, 2.15 with 0.01 and 2.13 with 0.02, which a
    longer run would find high."""
    embedding_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of the embedding in a model whose head is a table of its own; 0 takes `lr`. A row moves only when
    its token is there, so it may go far: thirty times the head's rate, as nanochat has it."""
    head_lr: Annotated[float, Field(ge=0)] = 0.0
    """Learning rate of a head of its own; 0 takes `lr`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled weight decay of the matrices, times the learning rate each step. Vectors and embeddings have none."""
    betas: tuple[Moment, Moment] = (0.9, 0.95)
    """AdamW's moments. 0.95 for the second, as in GPT-3 and Llama: 0.999 remembers longer than a short run lasts."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Muon's Nesterov momentum."""


class ScheduleSettings(Settings):
    """The learning rate over the run: up, flat, down to `final`. Fractions, so that longer runs keep the shape."""

    warmup: Annotated[float, Field(ge=0, le=1)] = 0.02
    """The part of the steps in which the rate rises from 0, linearly."""
    cooldown: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The part of the steps in which it falls to `final`, linearly. Most of the final loss is won here
    (arXiv 2405.18392)."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """What is left of the rate at the last step, as a fraction."""


class TrainSettings(Settings):
    """How long, with what, and how carefully to train."""

    steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps. 0 leaves it to the stage, which works it out from its data."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Which optimizer, and how far it steps."""
    schedule: ScheduleSettings = ScheduleSettings()
    """The learning rate over the run."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Gradients longer than this are shortened to it; 0 turns it off."""
    spike: Annotated[float, Field(ge=0)] = 0.0
    """A step whose loss or gradient norm lies more than so many standard deviations above the last 128 is left out; 0
    leaves none out. For pretraining on text of the web; the losses of rl jump by nature."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`bf16` computes in bfloat16 with float32 weights; `auto` does so where the processor has instructions for it."""
    compile: bool | Literal["auto"] = "auto"
    """`torch.compile`: steps are a quarter faster, but the first takes most of a minute. `auto` compiles runs of ten
    minutes or more whose batches all have one shape, unless the processor has kernels of llmctl's own: they are
    faster still and need no compiling."""
    save_minutes: Annotated[float, Field(gt=0), NoResult()] = 1.0
    """A checkpoint that often; a kill loses no more than that. It costs well under a second for a small model."""
    save_every: Annotated[int, Field(ge=0), NoResult()] = 0
    """A checkpoint also every so many steps; 0 leaves it to `save_minutes`."""
    keep_last: Annotated[int, Field(ge=1), NoResult()] = 2
    """How many checkpoints stay on the disk while training."""
    log_every: Annotated[int, Field(ge=1), NoResult()] = 1
    """A row in `metrics.jsonl` every so many steps."""
    trackers: Annotated[list[Literal["wandb", "tensorboard"]], NoResult()] = []
    """Where the rows go besides: `wandb` and `tensorboard` (extras of the same names). TensorBoard's files are in the
    workspace's folder `tensorboard/`."""
