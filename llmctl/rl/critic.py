"""PPO's critic: what a reply is going to earn, guessed at each of its tokens by a second model."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.model.config import ModelConfig
from llmctl.model.transformer import Transformer

# Adam moves a weight by about the learning rate whatever the gradient's size, and a policy's rate is too small for a
# head that begins at zero: its output would need hundreds of steps to reach 1.
_SCALE = 10.0


class Critic(nn.Module):
    """A transformer with a number at each token. Its head begins at zero: no reward expected, so the first advantages
    are the rewards themselves and not the noise of a random head.
    """

    def __init__(self, backbone: Transformer) -> None:
        super().__init__()
        self.backbone = backbone
        self.value = nn.Linear(backbone.config.width, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, ids: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Float32 (B, T): at position t, what is expected once tokens 0 to t are there. Takes what a policy takes."""
        hidden = self.backbone(ids, positions, segments).float()
        weight, bias = self.value.weight.float(), self.value.bias.float()
        return _SCALE * F.linear(hidden, weight, bias).squeeze(-1)


class ActorCritic(nn.Module):
    """Policy and critic as one model for the training loop: one optimizer, one checkpoint. Called, it is the policy."""

    def __init__(self, policy: Transformer, backbone: Transformer | None = None) -> None:
        """The critic begins as `backbone` (a reward model's, InstructGPT's choice) or as a copy of the policy."""
        super().__init__()
        self.policy = policy
        backbone = copy.deepcopy(policy if backbone is None else backbone).requires_grad_(True)
        backbone.lm_head = None  # it predicts no tokens
        self.critic = Critic(backbone)

    def forward(self, ids: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """The policy's hidden states."""
        return cast(Tensor, self.policy(ids, positions, segments))

    def logits(self, hidden: Tensor) -> Tensor:
        """The policy's."""
        return self.policy.logits(hidden)

    @property
    def head(self) -> Tensor:
        """The policy's."""
        return self.policy.head

    @property
    def softcap(self) -> float:
        """The policy's."""
        return self.policy.softcap

    @property
    def config(self) -> ModelConfig:
        """The policy's."""
        return self.policy.config

    @property
    def layers(self) -> nn.ModuleList:
        """The policy's."""
        return self.policy.layers


def policy_of(model: Any) -> Transformer:
    """The model that writes."""
    return cast(Transformer, getattr(model, "policy", model))
