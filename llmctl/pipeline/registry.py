"""The stages by name: where their settings and their work live, and what a person types after them.

Nothing of a stage is imported until it is asked for, so that `llmctl --help` and a recipe's check stay fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from llmctl.console import Console
from llmctl.errors import UserError, nearest
from llmctl.recipe import StageSettings
from llmctl.workspace import Artifact, Workspace

# What to type after a stage that makes another kind than usual.
_THEN = {"comparisons": "llmctl rm MODEL {out}"}


@dataclass(frozen=True)
class Stage:
    """One lifecycle stage. `also_makes` are kinds it makes under the same name beside its main one; `processes` says
    whether torchrun may start it, `bounded` whether its settings may hold bounds for its result.
    """

    name: str
    settings: str
    then: str
    also_makes: tuple[str, ...] = ()
    processes: bool = False
    bounded: bool = False

    @property
    def config(self) -> type[StageSettings]:
        """The schema of its settings."""
        found: type[StageSettings] = getattr(import_module(f"llmctl.{self.name}.config"), self.settings)
        return found

    @property
    def run(self) -> Callable[[Any, Workspace, Console], Artifact]:
        """`run(config, workspace, console)`: makes the artifact."""
        found: Callable[[Any, Workspace, Console], Artifact] = import_module(f"llmctl.{self.name}.stage").run
        return found

    @property
    def plan(self) -> Callable[[Any, Workspace], list[tuple[str, str]]]:
        """`plan(config, workspace)`: what --dry-run says about it."""
        found: Callable[[Any, Workspace], list[tuple[str, str]]] = import_module(f"llmctl.{self.name}.stage").plan
        return found

    def missed(self, config: Any, made: Artifact) -> list[str]:
        """The bounds of its settings that what it made misses, a line each."""
        if not self.bounded:
            return []
        found: list[str] = import_module(f"llmctl.{self.name}.gate").check(config, made)
        return found

    def next(self, made: Artifact) -> str:
        """What to type after `made`."""
        return _THEN.get(made.kind, self.then).format(out=made.name)


STAGES = {
    s.name: s
    for s in (
        Stage("crawl", "CrawlConfig", "llmctl filter {out}"),
        Stage("filter", "FilterConfig", "llmctl tokenize {out}"),
        Stage("tokenize", "TokenizeConfig", "llmctl pretrain {out}", also_makes=("tokenizer",)),
        Stage("pretrain", "PretrainConfig", 'llmctl chat {out} -p "Once upon a time"', processes=True),
        Stage("synth", "SynthConfig", "llmctl sft MODEL {out}"),
        Stage("sft", "SftConfig", "llmctl chat {out}", processes=True),
        Stage("rm", "RmConfig", "llmctl rl MODEL --reward {out}", processes=True),
        Stage("rl", "RlConfig", "llmctl chat {out}", processes=True),
        Stage("chat", "ChatConfig", "llmctl show {out}"),
        Stage("eval", "EvalConfig", "llmctl show {out}", bounded=True),
    )
}


def stage(name: str) -> Stage:
    """The stage called `name`. UserError with the nearest where there is none."""
    if name not in STAGES:
        raise UserError(f"no stage {name!r}{nearest(name, STAGES)}", fix="stages: " + ", ".join(STAGES))
    return STAGES[name]
