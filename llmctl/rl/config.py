"""The settings of reinforcement learning: what is practised, what is rewarded, and by which method."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from llmctl.errors import nearest
from llmctl.recipe import InputOf, NoResult, Settings, StageSettings
from llmctl.train.settings import OptimizerSettings, ScheduleSettings, TrainSettings
from llmctl.verify.identity import IdentityOptions
from llmctl.verify.lookup import LookupOptions
from llmctl.verify.names import NamesOptions
from llmctl.verify.python_tool import PythonOptions
from llmctl.verify.sums import SumsOptions

TASKS = ("sums", "identity", "names", "lookup", "python")
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class RewardSettings(Settings):
    """What a reply earns: the weighted sum of its components."""

    accuracy: NonNegative = 1.0
    """For a right answer."""
    format: NonNegative = 0.1
    """For an answer in the form that was taught, right or wrong. Small: a tenth of a right answer keeps the form alive
    and is never worth giving up an answer for."""
    learned: NonNegative = 1.0
    """Times the score of the reward model, where `reward` names one."""


class RolloutSettings(Settings):
    """How the model practises."""

    prompts: Positive = 32
    """Problems a step. More make the gradient less noisy and the step as much slower."""
    group: Annotated[int, Field(ge=2)] = 8
    """Answers tried for each problem, compared with each other. A problem teaches only when some of its answers are
    better than others, so rare successes need larger groups: at 10 % right, 8 tries have a spread in 57 % of groups."""
    max_new_tokens: Positive = 64
    """The longest reply, in tokens. A cut reply earns nothing, so this should be well above what is needed."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """1 samples from the model as it is. Log-probabilities are taken at the same temperature when training."""
    batch_size: Positive = 256
    """Replies written at once. More is faster until memory runs out."""


class MethodSettings(Settings):
    """How rewards become a gradient."""

    name: Literal["grpo"] = "grpo"
    """`grpo`: a reply's advantage is its reward against its group's (arXiv 2402.03300, as used in 2501.12948)."""
    scale: bool = True
    """Divide the advantage by the group's standard deviation. False is Dr. GRPO (arXiv 2503.20783): no extra weight for
    problems that are nearly always, or nearly never, solved."""
    normalise: Literal["sequence", "token", "constant"] = "sequence"
    """What the loss is averaged over. `sequence`: each reply counts the same (GRPO); `token`: each token does (DAPO,
    arXiv 2503.14476); `constant`: the sum of tokens over `max_new_tokens` (Dr. GRPO), without a bias for length."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """A token whose probability fell by more than this part since the roll-out is not pushed further down."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """The same upwards. DAPO's 0.28 lets rare tokens rise faster. Neither acts while `updates` is 1."""
    beta: NonNegative = 0.0
    """Weight of the KL penalty that holds the model near its start. 0 loads no reference model: answers that are
    checked cannot be gamed by drifting, those scored by a reward model can."""
    updates: Positive = 1
    """Optimizer steps on each set of roll-outs. 1 is exactly on-policy; more save roll-outs and need the clipping."""
    mask_truncated: bool = False
    """Leave replies that were cut at `max_new_tokens` out of the loss. False teaches the model to come to an end."""


class RlOptimizerSettings(OptimizerSettings):
    """Small, even steps: the signal is noisy and the model already knows nearly everything."""

    name: Literal["muon", "adamw"] = "adamw"
    """`adamw`, unlike in the other stages: Muon makes every direction of the noise as large as the signal, and was
    never better here at its best rate (docs/LOG.md)."""
    matrix_lr: Annotated[float, Field(gt=0)] = 0.0007
    """Learning rate of Muon, where `name` says so. 0.005 unlearns the task within ten steps."""
    lr: Annotated[float, Field(gt=0)] = 5e-5
    """Learning rate of AdamW: embeddings, head and vectors, or everything with `adamw`. 3e-5 learns half as fast on a
    model of 4 million parameters; 1e-4 unlearns before it learns."""
    weight_decay: NonNegative = 0.0
    """None: a few dozen steps of decay would only forget."""


class RlScheduleSettings(ScheduleSettings):
    """The learning rate over the run."""

    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The part of the steps in which the rate rises from 0: Adam's first steps know only one gradient each."""
    cooldown: Annotated[float, Field(ge=0, le=1)] = 0.3
    """The part of the steps in which it falls to `final`, linearly: the last steps then average out their noise."""


class RlTrainSettings(TrainSettings):
    """How long, with what, and how carefully to train."""

    steps: Annotated[int, Field(ge=1)] = 60
    """Optimizer steps."""
    optimizer: RlOptimizerSettings = RlOptimizerSettings()
    """Which optimizer, and how far it steps."""
    schedule: RlScheduleSettings = RlScheduleSettings()
    """The learning rate over the run."""
    compile: bool | Literal["auto"] = False
    """`torch.compile`. Off: roll-outs differ in length at every step, and each new shape would be compiled again."""


class RlConfig(StageSettings):
    """Reinforcement learning from answers that can be checked, from a reward model, or from both."""

    stage: ClassVar[str] = "rl"
    makes: ClassVar[str] = "model"

    out: str = "rl"
    """The name of the model to make."""
    model: Annotated[str, InputOf(("model",), files=True)]
    """The chat model to improve. It should solve some of the problems some of the time: what it never gets right by
    chance earns nothing and teaches nothing."""
    task: str = "sums"
    """The kind of problems to practise, made by code with known answers."""
    sums: SumsOptions = SumsOptions()
    """The problems of the task `sums`."""
    identity: IdentityOptions = IdentityOptions()
    """The problems of the task `identity`."""
    names: NamesOptions = NamesOptions()
    """The problems of the task `names`."""
    lookup: LookupOptions = LookupOptions()
    """The problems of the task `lookup`, solved with the search tool."""
    python: PythonOptions = PythonOptions()
    """The problems of the task `python`, solved with the python tool."""
    reward: Annotated[str, InputOf(("model",), files=True)] = ""
    """A reward model whose score is added to the reward. It has to have the model's tokenizer."""
    rewards: RewardSettings = RewardSettings()
    """What a reply earns."""
    rollouts: RolloutSettings = RolloutSettings()
    """How the model practises."""
    method: MethodSettings = MethodSettings()
    """How rewards become a gradient."""
    train: RlTrainSettings = RlTrainSettings()
    """How long, with what, and how carefully to train."""
    micro_tokens: Positive = 8192
    """Tokens of a forward and backward pass. Smaller needs less memory; the result is the same but for rounding."""
    eval_items: Annotated[int, Field(ge=1)] = 200
    """Held-out problems, answered greedily before and after. 200 have a standard error of 3.5 % at half right."""
    eval_every: Annotated[int, Field(ge=0), NoResult()] = 0
    """Answer them also every so many steps; 0 does not."""
    show_every: Annotated[int, Field(ge=0), NoResult()] = 20
    """Show the best, a middle and the worst roll-out every so many steps; 0 does not."""

    @field_validator("task")
    @classmethod
    def _known_task(cls, task: str) -> str:
        if task not in TASKS:
            raise ValueError(f"no task {task!r}{nearest(task, TASKS)}; tasks: {', '.join(TASKS)}")
        return task

    @property
    def options(self) -> dict[str, Any]:
        """The settings of the chosen task's problems."""
        found: Settings = getattr(self, self.task)
        return found.model_dump()

    @model_validator(mode="after")
    def _something_to_earn(self) -> RlConfig:
        rule = self.rewards.accuracy + self.rewards.format
        if not rule and not (self.reward and self.rewards.learned):
            raise ValueError("every reward weighs 0: nothing could be learned")
        return self
