"""Roll-outs as tensors; `packs` makes micro-batches of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llmctl.rl.advantage import token_weights
from llmctl.rl.config import MethodSettings
from llmctl.rl.rewards import Rollout

Rows = dict[str, Tensor]  # everything about N replies; the first dimension of each tensor is N


def collate(rollouts: Sequence[Rollout], method: MethodSettings, longest: int) -> Rows:
    """N replies, shortest first, padded on the right to (N, T), where T counts predictions: position t predicts t + 1.

    Trained on is what the model itself sampled, its stop token included: not the prompt, not what a tool answered and,
    if the method says so, nothing of a reply that was cut. The ids are the sampled ones, never text encoded again.
    `reply` (N, T) bool is where a reply's tokens are predicted, forced ones too; `index` (N,) whose row is whose.
    """
    order = sorted(range(len(rollouts)), key=lambda i: len(rollouts[i].prompt) + len(rollouts[i].sample.ids))
    lengths = [len(rollouts[i].prompt) + len(rollouts[i].sample.ids) for i in order]
    shape = (len(order), max(lengths, default=2))
    ids, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    sampled, reply = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for row, (i, length) in enumerate(zip(order, lengths, strict=True)):
        r = rollouts[i]
        begin = len(r.prompt)
        ids[row, :length] = torch.tensor(r.prompt + r.sample.ids)
        sampled[row, begin:length] = torch.tensor(r.sample.logprobs)
        reply[row, begin:length] = True
        if not (method.mask_truncated and r.truncated):
            mask[row, begin:length] = ~torch.tensor(r.sample.forced, dtype=torch.bool)
    weights, units = token_weights(mask, method.normalise, longest)
    return {
        "ids": ids[:, :-1].contiguous(),
        "targets": ids[:, 1:].contiguous(),
        "weights": weights[:, 1:].contiguous(),
        "sampled": sampled[:, 1:].contiguous(),
        "reply": reply[:, 1:].contiguous(),
        "units": units,
        "lengths": torch.tensor(lengths) - 1,
        "index": torch.tensor(order),
    }
