"""The settings of reinforcement learning: what is practised, what is rewarded, and by which method."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from llmctl.errors import nearest
from llmctl.recipe import InputOf, NoResult, Settings
from llmctl.rl.methods import GROUPED, METHODS, PRESETS
from llmctl.train.settings import OptimizerSettings, ScheduleSettings, TrainSettings
from llmctl.verify import KINDS
from llmctl.verify.options import ProblemSettings

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
    own: float = 1.0
    """Times what your function returns, where `function` names one. Negative turns it into a penalty."""
    unfinished: NonNegative = 0.0
    """Taken off a reply that was cut at `max_new_tokens`. By rule such a reply earns nothing anyway; a reward model
    scores it as if it were whole."""
    timeout: Annotated[float, Field(gt=0)] = 5.0
    """Seconds that your function has for a reply. One that takes longer is ended, and the reply left out."""


class RolloutSettings(Settings):
    """How the model practises."""

    prompts: Positive = 32
    """Problems a step. More make the gradient less noisy and the step as much slower."""
    group: Positive = 8
    """Answers tried for each problem, compared with each other. A problem teaches only when some of its answers are
    better than others, so rare successes need larger groups: at 10 % right, 8 tries have a spread in 57 % of groups.
    1 is possible where nothing is compared within a group: ppo and reinforce."""
    max_new_tokens: Positive = 64
    """The longest reply, in tokens. A cut reply earns nothing, so this should be well above what is needed."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """1 samples from the model as it is. Log-probabilities are taken at the same temperature when training."""
    batch_size: Positive = 256
    """Replies written at once. More is faster until memory runs out."""
    engine: Literal["llmctl", "vllm"] = "llmctl"
    """Who writes the replies: our own engine, or vLLM (an extra: pip install 'llmctl-toolkit[vllm]'), for larger models
    on GPUs. vLLM rounds otherwise than the trainer: set `method.sampler_cap` with it."""
    vllm_memory: Annotated[float, Field(gt=0, lt=1), NoResult()] = 0.3
    """The part of the GPU's memory that vLLM takes, for its copy of the weights and for its cache. The rest is for
    training."""
    template: str = ""
    """Plain text with `{question}` in it, for a base model that knows no chat format; empty renders the chat format."""
    stop: list[str] = []
    """Texts that end a reply, besides the end of turn: `</answer>` with a template that asks for one."""


class MethodSettings(Settings):
    """How rewards become a gradient: a method by name, and its switches. A switch that you set wins over the method's
    own; `method: dapo` alone is enough.
    """

    name: Literal[METHODS] = "grpo"  # type: ignore[valid-type]
    """Which method's switches to begin with: grpo, dr-grpo, dapo, gspo, rloo, reinforce or ppo; expert-iteration
    (trains on the replies that are right), best-of-n (trains nothing: it makes conversations of the best replies, or
    comparisons of all) and dpo (on comparisons, without roll-outs). docs/rl.md says what each one is, and which paper
    it is from."""
    advantage: Literal["group", "leave-one-out", "batch", "none", "gae"] = "group"
    """What a reward is compared with: the mean of its `group` (GRPO, arXiv 2402.03300), that of the others in it
    (`leave-one-out`, RLOO, arXiv 2402.14740), the mean of the whole `batch`, nothing, or the values of a critic (`gae`,
    arXiv 1506.02438), which costs a second model."""
    scale: bool = True
    """Divide the advantage by the group's (or the batch's) standard deviation. False is Dr. GRPO (arXiv 2503.20783): no
    extra weight for problems that are nearly always, or nearly never, solved."""
    normalise: Literal["sequence", "token", "constant", "sum"] = "sequence"
    """What the loss is averaged over. `sequence`: each reply counts the same (GRPO); `token`: each token does (DAPO,
    arXiv 2503.14476); `constant`: the sum of tokens over `max_new_tokens` (Dr. GRPO), without a bias for length; `sum`:
    the sum of a reply's tokens, the gradient of its log-probability (REINFORCE, RLOO)."""
    ratio: Literal["token", "sequence"] = "token"
    """Whose probability is compared with that at the roll-out and clipped: each token's, or the whole reply's, the
    geometric mean over its tokens (GSPO, arXiv 2507.18071)."""
    clip: bool = True
    """Whether the ratio is clipped. False is plain REINFORCE with importance weights."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """A token whose probability fell by more than this part since the roll-out is not pushed further down."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """The same upwards. DAPO's 0.28 lets rare tokens rise faster. Neither acts while `updates` is 1."""
    dual_clip: NonNegative = 0.0
    """Above 1 (3 is usual): bounds the loss of a bad token that became likelier (arXiv 1912.09729); 0 does not."""
    sampler_cap: NonNegative = 0.0
    """Above 0 (2 is usual): weights each token by p trainer / p sampler, at most this (TIS,
    fengyao.notion.site/off-policy-rl), where the sampler computes in another precision than the trainer. 0 trusts the
    sampler; `sampler_gap` says whether to."""
    beta: NonNegative = 0.0
    """Weight of the KL penalty that holds the model near its start. 0 loads no reference model: answers that are
    checked cannot be gamed by drifting, those scored by a reward model can. For dpo, the beta of its loss."""
    kl: Literal["k1", "k2", "k3", "k3+", "k3-ratio"] = "k3"
    """The estimator of the penalty, with d = log p - log reference: k1 = d (only in the reward: in the loss its
    gradient is noise), k2 = d^2/2 (its gradient is the KL's), k3 = exp(-d) - 1 + d (GRPO), `k3+` the value of k3 with
    k2's gradient, `k3-ratio` k3 times the importance ratio (DeepSeek-V3.2)."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where the penalty is: in the `loss` of each token (GRPO), or taken off each token's `reward` (InstructGPT)."""
    kl_target: NonNegative = 0.0
    """Above 0: `beta` rises and falls to hold the KL of a reply, in nats, near this (arXiv 1909.08593)."""
    kl_horizon: Annotated[float, Field(gt=0)] = 2000.0
    """Replies over which `beta` moves by at most a fifth. The paper's 10,000 is for a million replies."""
    dynamic_sampling: Annotated[int, Field(ge=0)] = 0
    """How often to draw more problems in a step until `rollouts.prompts` of them have a spread (DAPO). Each draw costs
    a roll-out."""
    overlong: Annotated[int, Field(ge=0)] = 0
    """Above 0: a reply that comes within so many tokens of `max_new_tokens` loses up to 1, linearly (DAPO, equation
    13)."""
    updates: Positive = 1
    """Optimizer steps on each set of roll-outs. 1 is exactly on-policy; more save roll-outs and need the clipping."""
    mask_truncated: bool = False
    """Leave replies that were cut at `max_new_tokens` out of the loss. False teaches the model to come to an end."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """GAE's discount a token. 1: a reply is short, and its end matters as much as its begin."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """GAE's mix of the critic's guess (0: biased, steady) and what was really earned (1: unbiased, noisy)."""
    whiten: bool = True
    """With `gae`: advantages to mean 0 and standard deviation 1 over the trained tokens of a set of roll-outs."""
    value_clip: Annotated[float, Field(gt=0)] = 0.2
    """With `gae`: how far a value may move from that at the roll-out before its gradient is clipped."""
    value_coef: NonNegative = 0.1
    """With `gae`: weight of the critic's loss."""
    keep: Literal["right", "best", "ranking"] = "right"
    """For expert-iteration and best-of-n: which replies are kept. `right`: all that are right (best-of-n: the best of
    them); `best`: the best of each group, right or not, where rewards differ: for tasks without answers; `ranking`
    (best-of-n alone): all, ordered by reward, as comparisons for rm and dpo."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """For dpo: how often a comparison is thought to be the wrong way round (conservative DPO)."""
    sft_weight: NonNegative = 0.0
    """For dpo: times this, the better reply's own -log p a token is added to the loss where it is the best of its
    ranking (Iterative RPO, arXiv 2404.19733, with 1). DPO is content where both replies become less likely, the worse
    one faster; then right answers fall too. `chosen` in the log says by how many nats the better reply has gained."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        """The named method's switches below what was set."""
        data = {"name": data} if isinstance(data, str) else data
        if not isinstance(data, dict) or not isinstance(data.get("name", ""), str):
            return data
        return {**PRESETS.get(data.get("name", "grpo"), {}), **data}

    @model_validator(mode="after")
    def _consistent(self) -> MethodSettings:
        if self.kl == "k1" and self.kl_in == "loss" and self.beta and self.rolls:
            raise ValueError("kl k1 in the loss has no gradient but noise: set kl_in: reward, or kl: k2 or k3")
        if self.kl_target and not self.beta:
            raise ValueError("kl_target needs a beta above 0 to begin with")
        if 0 < self.dual_clip <= 1:
            raise ValueError("dual_clip should be above 1, or 0 for none")
        if self.keep == "ranking" and self.name != "best-of-n":
            raise ValueError(f"keep: ranking makes comparisons, which best-of-n alone does, not {self.name}")
        return self

    @property
    def rolls(self) -> bool:
        """Whether roll-outs are made and trained on by a policy gradient."""
        return self.name not in ("expert-iteration", "best-of-n", "dpo")

    @property
    def grouped(self) -> bool:
        """Whether a reply is compared with others to the same prompt."""
        return self.advantage in GROUPED


class GuardSettings(Settings):
    """The guard against gaming a reward: what is practised for is held against a "gold" reward that is not.

    Gold is, in this order: the reward model that `gold` names, the function that `guard.function` names, or, where the
    reward is a model's or a function's, right answers by rule.
    """

    every: Annotated[int, Field(ge=0)] = 10
    """Measure proxy, gold and KL on held-out prompts every so many steps; 0 turns the guard off. Where nothing but
    rules is rewarded there is nothing to guard, and nothing is measured."""
    function: str = ""
    """`module:function`: a gold reward of your own, called as the reward function is."""
    drop: Annotated[float, Field(gt=0)] = 0.05
    """Stop, and keep the best model so far, when gold is this part below its best (for a reward model: this part of a
    standard deviation) and by more than luck: by three standard errors of the difference, or by two at two
    measurements running."""
    kl_budget: NonNegative = 0.0
    """Stop when the KL of a reply to the model at the start passes this many nats; 0 sets no bound."""
    repetition: Annotated[float, Field(gt=0)] = 0.3
    """Stop when the share of repeated 4-grams is this much above the start's."""
    length: Annotated[float, Field(gt=1)] = 3.0
    """Stop when replies are so many times as long as at the start and gold is no better."""
    action: Literal["stop", "warn"] = "stop"
    """`warn` says it and goes on."""
    items: Positive = 64
    """Held-out prompts, each answered once at the temperature of the roll-outs, with the same noise every time."""


class RlOptimizerSettings(OptimizerSettings):
    """Small, even steps: the signal is noisy and the model already knows nearly everything."""

    name: Literal["muon", "adamw"] = "adamw"
    """`adamw`, unlike in the other stages: Muon makes every direction of the noise as large as the signal, and was
    never better here at its best rate (docs/LOG.md)."""
    matrix_lr: Annotated[float, Field(gt=0)] = 0.0007
    """Learning rate of Muon, where `name` says so. 0.005 unlearns the task within ten steps."""
    lr: Annotated[float, Field(gt=0)] = 5e-5
    """Learning rate of AdamW: embeddings, head and vectors, or everything with `adamw`. 3e-5 learns half as fast on a
    model of 4 million parameters; 1e-4 unlearns before it learns at a temperature of 1, and learns more than twice as
    fast at 0.6 (docs/LOG.md)."""
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
    compile: bool | Literal["auto"] = "auto"
    """`torch.compile` of the update. Replies are packed into rows of one shape, so one graph serves the whole run; the
    first step takes most of a minute. `auto` compiles runs of ten minutes or more where there are no faster kernels."""


class RlConfig(ProblemSettings):
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
    data: Annotated[list[str], InputOf(("conversations", "comparisons"), files=True)] = []
    """Prompts from conversations or comparisons, in place of `task`. Rows with an `answer` and a `check` are judged by
    rule, others need `reward` or `function`. For `dpo`: the comparisons."""
    reward: Annotated[str, InputOf(("model",), files=True)] = ""
    """A reward model whose score is added to the reward. It has to have the model's tokenizer."""
    function: str = ""
    """`module:function`, a reward of your own, looked for in the current folder first. It is called with a dict
    (question, messages, reply, answer, finished) and returns a number; None leaves the reply out."""
    gold: Annotated[str, InputOf(("model",), files=True)] = ""
    """Another reward model, never trained on, by which the guard knows when the reward is being gamed."""
    rewards: RewardSettings = RewardSettings()
    """What a reply earns."""
    rollouts: RolloutSettings = RolloutSettings()
    """How the model practises."""
    method: MethodSettings = MethodSettings()
    """How rewards become a gradient."""
    guard: GuardSettings = GuardSettings()
    """When to stop because the reward is being gamed."""
    train: RlTrainSettings = RlTrainSettings()
    """How long, with what, and how carefully to train."""
    micro_tokens: Positive = 8192
    """Tokens of a forward and backward pass, at most. Smaller needs less memory; the result is the same but for
    rounding."""
    eval_items: Annotated[int, Field(ge=1)] = 200
    """Held-out problems, answered greedily before and after. 200 have a standard error of 3.5 % at half right."""
    eval_every: Annotated[int, Field(ge=0), NoResult()] = 0
    """Answer them also every so many steps; 0 does not."""
    show_every: Annotated[int, Field(ge=0), NoResult()] = 20
    """Show the best, a middle and the worst roll-out every so many steps; 0 does not."""

    @field_validator("task")
    @classmethod
    def _known_task(cls, task: str) -> str:
        if task not in KINDS:
            raise ValueError(f"no task {task!r}{nearest(task, KINDS)}; tasks: {', '.join(KINDS)}")
        return task

    @property
    def options(self) -> dict[str, Any]:
        """The settings of the chosen task's problems."""
        found: Settings = getattr(self, self.task)
        return found.model_dump()

    @property
    def made_kind(self) -> str:
        """Conversations or comparisons for best-of-n, which trains nothing; a model for all else."""
        if self.method.name != "best-of-n":
            return "model"
        return "comparisons" if self.method.keep == "ranking" else "conversations"

    @property
    def gameable(self) -> bool:
        """Whether something is rewarded that is no rule."""
        return bool(self.reward and self.rewards.learned) or bool(self.function and self.rewards.own)

    @model_validator(mode="after")
    def _something_to_earn(self) -> RlConfig:
        if self.method.name == "dpo":
            if not self.data:
                raise ValueError("dpo learns from comparisons: name them in `data`")
            return self
        rule = self.rewards.accuracy + self.rewards.format
        if not rule and not self.gameable:
            raise ValueError("every reward weighs 0: nothing could be learned")
        return self

    @model_validator(mode="after")
    def _enough_to_compare(self) -> RlConfig:
        alone = self.rollouts.group == 1 and self.method.name != "dpo"
        if (
            alone
            and (self.method.grouped or self.method.name == "best-of-n")
            and self.method.name != "expert-iteration"
        ):
            raise ValueError(
                f"rollouts.group is 1, but {self.method.name} compares the replies of a group: 2 or more, or "
                "method.advantage batch or gae"
            )
        if self.rollouts.template and "{question}" not in self.rollouts.template:
            raise ValueError("rollouts.template has no {question} in it")
        for name, value in (("function", self.function), ("guard.function", self.guard.function)):
            if value and not all(value.partition(":")):
                raise ValueError(f"{name} {value!r} should be module:function")
        return self
