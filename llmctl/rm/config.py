"""The settings of reward models: what is compared, how long and how carefully to learn from it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from llmctl.recipe import InputOf, NoResult, Settings, StageSettings
from llmctl.train.settings import OptimizerSettings, TrainSettings

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]


class LossSettings(Settings):
    """What is minimised: Bradley-Terry, where the chance to be preferred is sigmoid(own score - the other's)."""

    form: Literal["pairs", "plackett-luce"] = "pairs"
    """`pairs`: the mean over all pairs of a prompt's replies, as InstructGPT (arXiv 2203.02155). `plackett-luce`: a
    ranking as choices, the best of all, then the best of what is left (ListMLE, Xia et al. 2008). The same for pairs
    alone."""
    ties: NonNegative = 0.0
    """How common ties are: Davidson's nu (1970), with which two replies of equal score are tied with the chance
    nu / (2 + nu). 0 leaves ties out; 1 is a beginning where a third of comparable replies are tied. Only for pairs."""
    margin: NonNegative = 0.0
    """How far apart scores should be at least, for a reply that is better by all there is (Llama 2, arXiv 2307.09288):
    scaled by the row's `margin`, or else by the ranks between the two. 0 where comparisons are noisy; Llama 2 took 1
    and 3 for human ratings in four steps."""
    center: NonNegative = 0.0
    """Weight of the squared sum of a pair's scores, which keeps scores near zero (arXiv 2312.09244; 0.01 is usual).
    Only differences are learned, so without it the mean drifts; it is taken out after training in any case."""

    @model_validator(mode="after")
    def _ties_are_pairs(self) -> LossSettings:
        if self.ties and self.form != "pairs":
            raise ValueError("ties need form: pairs; plackett-luce has no place for them")
        return self


class ScaleSettings(Settings):
    """Rewards brought to mean 0 and standard deviation 1 after training (arXiv 1909.08593, section 2.2)."""

    over: Literal["replies", "model"] = "replies"
    """Over what: the `replies` it is measured on, which cost nothing more, or what the starting `model` answers to
    their prompts. The second is right before rl: it is the policy that will be rewarded."""
    samples: Annotated[int, Field(ge=2)] = 256
    """Answers to sample, one a prompt, where it is over the model's."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of the answers; rl's default."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    """The longest answer."""


class RmOptimizerSettings(OptimizerSettings):
    """As in the other stages with smaller steps: only the head is new, and there are few comparisons."""

    matrix_lr: Annotated[float, Field(gt=0)] = 0.005
    """Learning rate of Muon: a quarter of pretraining's. Three times both rates was worse: held-out loss 0.39, not
    0.33, on `synth preferences` (30 steps of 16 prompts, a model of 3.7 M parameters, one seed)."""
    lr: Annotated[float, Field(gt=0)] = 3e-4
    """Learning rate of AdamW: the head, embeddings and vectors. 1e-3 was a little worse there (0.33, not 0.30)."""
    weight_decay: NonNegative = 0.0
    """None: a few hundred steps of decay would only forget."""


class RmTrainSettings(TrainSettings):
    """How long, with what, and how carefully to train."""

    steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps. 0 takes as many as `epochs` needs."""
    optimizer: RmOptimizerSettings = RmOptimizerSettings()
    """Which optimizer, and how far it steps."""
    compile: bool | Literal["auto"] = False
    """`torch.compile`. Off: batches differ in length at every step, and each new shape would be compiled again."""


class RmConfig(StageSettings):
    """A reward model: learns from rankings of replies to give the better one the higher score."""

    stage: ClassVar[str] = "rm"
    makes: ClassVar[str] = "model"

    out: str = "rm"
    """The name of the model to make."""
    model: Annotated[str, InputOf(("model",), files=True)]
    """The chat model to start from: the one whose replies are to be judged, so that it knows what they talk about."""
    comparisons: Annotated[list[str], InputOf(("comparisons",), files=True), Field(min_length=1)]
    """Which replies are better: comparisons of the workspace, or files in any of the usual forms."""
    loss: LossSettings = LossSettings()
    """What is minimised."""
    scale: ScaleSettings = ScaleSettings()
    """How scores become rewards."""
    epochs: Annotated[float, Field(gt=0)] = 2.0
    """How often the comparisons are gone through. More than a few, and a reward model knows them by heart."""
    prompts: Positive = 32
    """Prompts a step, each with all of its replies. More make the gradient less noisy and the step as much slower."""
    max_length: Annotated[int, Field(ge=0)] = 0
    """The longest prompt with its reply, in tokens; 0, or more than that, is the model's context. Comparisons with
    something longer are left out and counted, never cut: the end of a reply is part of what was judged."""
    heldout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The part that is held out of comparisons that come without a held-out part, by a hash of the prompt."""
    eval_pairs: Annotated[int, Field(ge=0)] = 500
    """Held-out pairs to measure on, before and after, or a ranking's worth more. The interval is +-4 points at 500 and
    70 % right, +-9 at 100."""
    train: RmTrainSettings = RmTrainSettings()
    """How long, with what, and how carefully to train."""
    micro_tokens: Positive = 16384
    """Tokens of a forward and backward pass, padding included, or one prompt with its replies. Smaller needs less
    memory; the result is the same but for rounding."""
    eval_every: Annotated[int, Field(ge=0), NoResult()] = 0
    """Measure on the held-out pairs also every so many steps; 0 does not."""
