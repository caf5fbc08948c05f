"""The models under test: what they are, and what they may be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmctl.eval.lineage import Lineage, lineage
from llmctl.model.chat_format import format_of
from llmctl.model.config import ModelConfig
from llmctl.model.folder import read_config
from llmctl.model.hub import local
from llmctl.model.tokenizer import Tokenizer
from llmctl.workspace import Artifact, Foreign, Workspace

_TAUGHT_TO_CHAT = ("sft", "rl")


@dataclass(frozen=True)
class Subject:
    """One model. `label` heads its column and names its file; no two are the same."""

    label: str
    path: Path
    reference: dict[str, str]
    lineage: Lineage
    rewards: bool
    """It scores answers; it writes none."""
    chats: bool
    """It was taught to answer. A base model is asked as well, and its score shows where chat training began."""
    askable: bool
    """Its tokenizer has the tokens of a chat format: without them there is no way to put a question."""
    parameters: int

    def facts(self) -> dict[str, Any]:
        """What the report says about it."""
        return {
            "label": self.label,
            **self.reference,
            "role": "reward" if self.rewards else "language",
            "chats": self.chats,
            "parameters": self.parameters,
        }


def subjects(models: Sequence[str], workspace: Workspace) -> list[Subject]:
    """The models as named, in order. UserError for what is no model folder."""
    found: list[Subject] = []
    for value in models:
        made = workspace.resolve(value, ("model",), files=True)
        labels = [s.label for s in found]
        found.append(_subject(made, workspace, labels))
    return found


def _subject(made: Artifact | Foreign, workspace: Workspace, taken: Sequence[str]) -> Subject:
    if isinstance(made, Foreign):
        made = replace(made, path=local(made.path))
    name = made.name.rpartition("/")[2] if made.name else made.path.resolve().name or "model"
    config = read_config(made.path)
    rewards = str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification")
    ancestors = lineage(workspace, [made]) if isinstance(made, Artifact) else Lineage()
    stages = {str(a.manifest.get("stage")) for a in ancestors.of_kind("model")}
    # A folder from elsewhere has no lineage; that it brings a chat template is the best sign there is.
    template = (made.path / "chat_template.jinja").is_file()
    chats = bool(stages & set(_TAUGHT_TO_CHAT)) if stages else template
    return Subject(
        label=_unlike(name, taken),
        path=made.path,
        reference=made.reference(),
        lineage=ancestors,
        rewards=rewards,
        chats=chats and not rewards,
        askable=not rewards and format_of(Tokenizer.load(made.path)) is not None,
        parameters=ModelConfig.from_hf(config, str(made.path / "config.json")).parameters(),
    )


def _unlike(name: str, taken: Sequence[str]) -> str:
    """`name`, or `name-2`, `name-3` where it is taken."""
    label, n = name, 1
    while label in taken:
        n += 1
        label = f"{name}-{n}"
    return label
