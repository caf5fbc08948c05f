"""The settings of `llmctl synth`. Each kind of problem brings its own group, defined beside the problem."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from llmctl.endpoint.config import EndpointSettings
from llmctl.errors import nearest
from llmctl.recipe import InputOf, Settings
from llmctl.synth.makers import ChatOptions, DistillOptions, KnowledgeOptions
from llmctl.verify import KINDS as PROBLEMS
from llmctl.verify.options import ProblemSettings

TOGETHER = {"tools": ("lookup", "python")}
PREFERENCES = "preferences"
MAKERS = ("knowledge", "chat", "distill")
KINDS = (*PROBLEMS, *TOGETHER, PREFERENCES, *MAKERS)


class PreferencesOptions(Settings):
    """Several replies to one prompt, ordered."""

    kinds: list[Literal["sums", "identity", "names"]] = Field(["sums", "names"], min_length=1)
    """Whose problems are the prompts."""
    responses: tuple[int, int] = (2, 4)
    """Fewest and most replies to a prompt (2 to 4). K replies say as much as K(K-1)/2 pairs, at K times the reading."""

    @field_validator("responses")
    @classmethod
    def _possible(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 2 <= value[0] <= value[1] <= 4:
            raise ValueError("should be [fewest, most], between 2 and 4")
        return value


class SynthConfig(ProblemSettings):
    """What to make, and how much of it."""

    stage: ClassVar[str] = "synth"
    makes: ClassVar[str] = "conversations"

    out: str = "synth"
    """The name of the artifact to make; on the command line the kind's name, unless given."""
    mix: dict[str, int]
    """How many of each kind, e.g. {sums: 3000, names: 1000}: sums, identity, names, lookup, python, tools (lookup and
    python, half each), countdown, letters, spelling, decimals, gsm8k, math, code; all are shuffled into one artifact.
    Or one of these alone: {preferences: N}, which makes comparisons; {knowledge: N}, N questions; {chat: N}, N
    conversations; {distill: N}, N problems."""
    heldout: int = Field(100, ge=0, le=100_000)
    """How many held-out problems of each kind are added. The error bar of an accuracy of 50 % is +-10 points at 100,
    +-3 at 1,000. Where a kind has fewer (identity has some dozen held-out wordings), there are fewer."""
    model: Annotated[str, InputOf(("model",), files=True)] = ""
    """The chat model that is asked what it knows (knowledge)."""
    teacher: Annotated[str, InputOf(("model",), files=True)] = ""
    """The chat model that writes: questions and verdicts (knowledge), conversations (chat), solutions (distill). With
    your own model as the teacher, distill is rejection sampling. Empty: the endpoint."""
    endpoint: EndpointSettings = EndpointSettings()
    """A server that writes, where `teacher` is empty."""
    corpus: Annotated[str, InputOf(("corpus",), files=True)] = ""
    """Whose passages are asked about (knowledge, chat): a corpus, or files of text."""
    problems: Annotated[str, InputOf(("conversations",), files=True)] = ""
    """Problems to distill: conversations with `answer` and `check`. Empty: `distill.task` says which are made."""
    knowledge: KnowledgeOptions = KnowledgeOptions()
    """Finding out what the model knows."""
    chat: ChatOptions = ChatOptions()
    """Conversations written by a model."""
    distill: DistillOptions = DistillOptions()
    """Solutions written by a model."""
    from_system: float = Field(0.0, ge=0, le=1)
    """The share of identity questions that have a system message with made-up facts, which the answer repeats. The
    model then reads who it is from its system message and can be renamed without training."""
    preferences: PreferencesOptions = PreferencesOptions()
    """Ordered replies."""

    @field_validator("mix")
    @classmethod
    def _known(cls, mix: dict[str, int]) -> dict[str, int]:
        for kind, count in mix.items():
            if kind not in KINDS:
                raise ValueError(f"no kind {kind!r}{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")
            if not 0 < count <= 10_000_000:
                raise ValueError(f"{kind}: {count} is no number of problems to make")
        if not mix:
            raise ValueError("say what to make, e.g. {sums: 1000}")
        alone = next((kind for kind in mix if kind in (PREFERENCES, *MAKERS)), None)
        if alone and len(mix) > 1:
            raise ValueError(f"{alone} makes an artifact of its own: use two synth steps")
        return mix

    @model_validator(mode="after")
    def _complete(self) -> SynthConfig:
        if "knowledge" in self.mix and not (self.model and self.corpus):
            raise ValueError("knowledge needs the model to be asked (model) and texts to ask about (corpus)")
        writer = bool(self.teacher or self.endpoint.url)
        if not writer and ("chat" in self.mix or "distill" in self.mix):
            raise ValueError(f"{next(iter(self.mix))} needs a writer: teacher, or endpoint.url and endpoint.model")
        if not writer and "knowledge" in self.mix and self.knowledge.judge == "model":
            raise ValueError("the judge needs a model: teacher, or endpoint.url and endpoint.model")
        return self

    @property
    def maker(self) -> str | None:
        """The kind, where it is one whose words come from a model."""
        return next((kind for kind in self.mix if kind in MAKERS), None)

    @property
    def made_kind(self) -> str:
        """Comparisons for preferences, conversations for all else."""
        return "comparisons" if PREFERENCES in self.mix else "conversations"

    def counts(self) -> dict[str, int]:
        """How many of each kind of problem, with kinds that stand for several taken apart."""
        found: dict[str, int] = {}
        for kind, count in self.mix.items():
            parts = TOGETHER.get(kind, (kind,))
            for i, part in enumerate(parts):
                share = count // len(parts) + (i < count % len(parts))
                found[part] = found.get(part, 0) + share
        return found
