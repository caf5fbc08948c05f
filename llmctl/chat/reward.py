"""A reward model's opinion of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from llmctl.errors import UserError
from llmctl.model.chat_format import render
from llmctl.model.folder import load_reward_model
from llmctl.model.hub import local
from llmctl.workspace import Foreign, Workspace


class Judge:
    """The reward model `name`, a model of the workspace or a folder."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        source = workspace.resolve(name, ["model"], files=True)
        if isinstance(source, Foreign):
            source = replace(source, path=local(source.path))
        self.name = name
        self.model, self.tokenizer = load_reward_model(source.path)

    @torch.inference_mode()
    def score(self, dialogues: Sequence[Sequence[Mapping[str, Any]]]) -> list[float]:
        """A score for each conversation, rendered as reward models are trained on it. Higher is better."""
        found = []
        for dialogue in dialogues:
            ids = render(dialogue, self.tokenizer).ids
            if len(ids) > self.model.config.context:
                raise UserError(f"that is {len(ids):,} tokens; {self.name} reads {self.model.config.context:,}")
            found.append(float(self.model(torch.tensor([ids]), torch.tensor([len(ids)]))[0]))
        return found
