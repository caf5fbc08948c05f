"""The settings of `llmctl synth`. Each kind of problem brings its own group, defined beside the problem."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from llmctl.errors import nearest
from llmctl.recipe import Settings, StageSettings
from llmctl.verify.identity import IdentityOptions
from llmctl.verify.lookup import LookupOptions
from llmctl.verify.names import NamesOptions
from llmctl.verify.python_tool import PythonOptions
from llmctl.verify.sums import SumsOptions

PROBLEMS = ("sums", "identity", "names", "lookup", "python")
TOGETHER = {"tools": ("lookup", "python")}
PREFERENCES = "preferences"
KINDS = (*PROBLEMS, *TOGETHER, PREFERENCES)


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


class SynthConfig(StageSettings):
    """What to make, and how much of it."""

    stage: ClassVar[str] = "synth"
    makes: ClassVar[str] = "conversations"

    out: str = "synth"
    """The name of the artifact to make; on the command line the kind's name, unless given."""
    mix: dict[str, int]
    """How many of each kind, e.g. {sums: 3000, names: 1000}: sums, identity, names, lookup, python, tools (lookup and
    python, half each); all are shuffled into one artifact. Or {preferences: N} alone, which makes comparisons."""
    heldout: int = Field(100, ge=0, le=100_000)
    """How many held-out problems of each kind are added. The error bar of an accuracy of 50 % is +-10 points at 100,
    +-3 at 1,000. Where a kind has fewer (identity has some dozen held-out wordings), there are fewer."""
    sums: SumsOptions = SumsOptions()
    """Arithmetic with worked steps."""
    identity: IdentityOptions = IdentityOptions()
    """Who the model is."""
    names: NamesOptions = NamesOptions()
    """Known and made-up names."""
    lookup: LookupOptions = LookupOptions()
    """Questions for the search tool."""
    python: PythonOptions = PythonOptions()
    """Questions for the python tool."""
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
        if PREFERENCES in mix and len(mix) > 1:
            raise ValueError("preferences make comparisons, the other kinds conversations: use two synth steps")
        return mix

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
