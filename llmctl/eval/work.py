"""What will be measured: the models, the items, the tokens and the pairs, found before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.contamination import contamination
from llmctl.eval.core import CORE, OWN, Bundle, read_bundle
from llmctl.eval.pairs import Pair, held_out_pairs
from llmctl.eval.questions import LOSS, PAIRS, Questions, kinds, questions
from llmctl.eval.subjects import Subject, subjects
from llmctl.eval.task_file import is_task
from llmctl.eval.task_run import Prepared, check_chat, prepare
from llmctl.workspace import Artifact, Foreign, Workspace


@dataclass
class Work:
    """Everything that will be measured, and notes on what will not."""

    subjects: list[Subject]
    questions: Questions
    tokens: Artifact | None
    tasks: list[Prepared]
    core: Bundle | None
    pairs: list[Pair]
    comparisons: list[Artifact | Foreign]
    notes: list[str]

    @property
    def writers(self) -> list[Subject]:
        """The models that write answers."""
        return [s for s in self.subjects if not s.rewards]

    @property
    def judges(self) -> list[Subject]:
        """The reward models."""
        return [s for s in self.subjects if s.rewards]


def gather(config: EvalConfig, workspace: Workspace) -> Work:
    """Find the models, the items, the tokens and the pairs. UserError where nothing can be measured."""
    found = subjects(config.models, workspace)
    writers, judges = [s for s in found if not s.rewards], [s for s in found if s.rewards]
    notes = [
        f"{s.label}: its tokenizer lacks the chat tokens, so it is not asked anything" for s in writers if not s.askable
    ]
    notes += [f"{what}: not used" for what in dict.fromkeys(w for s in found for w in s.lineage.lost)]
    given = [workspace.resolve(c, ("conversations",), files=True) for c in config.conversations]
    tasks = [prepare(name, config) for name in dict.fromkeys(config.tasks) if is_task(name)] if writers else []
    core = read_bundle(Path(config.core) if config.core else OWN, config.limit) if CORE in config.tasks else None
    asked = Questions()
    if (kinds(config) or (not config.tasks and not config.harness)) and any(s.askable for s in writers):
        asked = questions(config, given, _inherited(writers, "conversations"))
    tokens = _tokens(config, workspace, writers, notes) if writers and _wanted(LOSS, config) else None
    compared: list[Artifact | Foreign] = []
    if judges and _wanted(PAIRS, config):
        compared = [workspace.resolve(c, ("comparisons",), files=True) for c in config.comparisons]
        compared = compared or list(_inherited(judges, "comparisons"))
    pairs = held_out_pairs(compared, config.pairs, config.seed) if compared else []
    if config.apply_chat_template:
        for s in writers:
            check_chat(s.label, s.askable)
    if not asked.items and tokens is None and not pairs and not tasks and not core and not config.harness:
        raise UserError(
            "there is nothing to measure these models on",
            ", ".join(config.models),
            "give conversations with an 'answer' and a 'check', tokens, or comparisons",
        )
    if config.contamination:
        notes += contamination(tasks, core, writers)
    return Work(found, asked, tokens, tasks, core, pairs, compared, notes)


def _wanted(task: str, config: EvalConfig) -> bool:
    return task in config.tasks or (not config.tasks and not config.harness)


def _inherited(found: Sequence[Subject], kind: str) -> list[Artifact]:
    """The artifacts of a kind in the models' lineage, each once."""
    return list({(a.kind, a.name): a for s in found for a in s.lineage.of_kind(kind)}.values())


def _tokens(config: EvalConfig, workspace: Workspace, writers: Sequence[Subject], notes: list[str]) -> Artifact | None:
    """The tokens that all the models are measured on: one set, or the figures would not compare."""
    if config.tokens:
        return workspace.find(config.tokens, ["tokens"])
    there = _inherited(writers, "tokens")
    if len(there) > 1:
        others = ", ".join(a.name for a in there[1:])
        notes.append(f"bits per byte are measured on {there[0].name}, not on {others}: choose with `tokens`")
    return there[0] if there else None
