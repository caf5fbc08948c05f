"""The loss of fine-tuning, by the rules that others have learned the hard way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sft_made import little_tokenizer, make_conversations, make_model, rows

from llmctl.model.chat_format import IM_END, render
from llmctl.model.config import ModelConfig
from llmctl.model.folder import load_model
from llmctl.model.transformer import Transformer
from llmctl.sft import stage
from llmctl.sft.config import SftConfig
from llmctl.sft.data import rendered
from llmctl.train.loss import lm_loss
from llmctl.train.packing import pack


def little_model(vocab_size: int) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size, 2, 32, 2, 2, 16, 64, 96))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return model


def by_hand(model: Transformer, ids: list[int], mask: list[bool]) -> torch.Tensor:
    """The summed cross-entropy of one conversation alone: the logits at t predict id t + 1 where that is learned."""
    logits = model.logits(model(torch.tensor([ids])))[0, :-1]
    losses = F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    return losses[torch.tensor(mask[1:])].sum().detach()


def test_a_packed_row_has_the_loss_of_its_conversations_alone() -> None:
    tokenizer = little_tokenizer()
    model = little_model(tokenizer.vocab_size)
    talks = rows(12, 0)
    talks += [{"messages": [*a["messages"], *b["messages"]]} for a, b in zip(rows(6, 1), rows(6, 2), strict=True)]
    examples = rendered(talks, tokenizer, 95).examples
    packed = pack(examples, 95)
    assert len(packed) < len(examples) / 2
    together = lm_loss(model, packed.batch(range(len(packed))))
    alone = sum(by_hand(model, ids, mask) for ids, mask in examples)
    count = sum(sum(mask) for _, mask in examples)
    assert float(together.count) == count
    assert float(together.total.detach() / count) == pytest.approx(float(alone / count), abs=1e-5)


def test_packing_without_the_walls_would_be_another_loss() -> None:
    """So that the test above can fail: attention across conversations, or positions that run on, change it."""
    tokenizer = little_tokenizer()
    model = little_model(tokenizer.vocab_size)
    packed = pack(rendered(rows(8, 0), tokenizer, 95).examples, 95)
    batch = packed.batch(range(len(packed)))
    right = float(lm_loss(model, batch).total.detach())
    batch.segments, kept = torch.zeros_like(batch.segments), batch.segments
    assert abs(float(lm_loss(model, batch).total.detach()) - right) > 1e-3 * right
    batch.segments, batch.positions = kept, torch.arange(95).expand(len(packed), -1)
    assert float(lm_loss(model, batch).total.detach()) == pytest.approx(right, rel=1e-4), (
        "rotary positions are relative"
    )


def test_the_end_of_a_turn_is_learned_though_it_may_pad() -> None:
    """Padding is known by length: masking by id would never teach a model to stop."""
    tokenizer = little_tokenizer()
    found = render(rows(1, 0)[0]["messages"], tokenizer)
    end = tokenizer.specials[IM_END]
    packed = pack([(found.ids, found.mask)], len(found) + 10)
    learned = packed.targets[0][packed.weights[0] > 0].tolist()
    assert learned[-1] == end and len(learned) == sum(found.mask)
    assert not packed.weights[0, len(found) - 1 :].any()


def trained(workspace: Any, console: Any, out: str, at_once: int) -> Any:
    config = {
        "model": "base", "conversations": ["made"], "out": out, "batch_tokens": 512, "rows_at_once": at_once,
        "eval_items": 0, "eval_every": 0, "context": 64,
        "train": {"steps": 12, "precision": "fp32", "optimizer": {"name": "adamw"}},
    }  # fmt: skip
    return stage.run(SftConfig.model_validate(config), workspace, console)


def test_eight_passes_of_one_row_are_one_of_eight(workspace, console) -> None:
    """The whole trajectory through the stage itself: the mean is over all that an update learns."""
    make_model(workspace)
    make_conversations(workspace)
    one, eight = trained(workspace, console, "one", 8), trained(workspace, console, "eight", 1)
    losses = [[row["loss"] for row in made.metrics() if "loss" in row] for made in (one, eight)]
    assert len(losses[0]) == 12 and losses[0] == pytest.approx(losses[1], abs=1e-5)
    weights = [load_model(made.path)[0].state_dict() for made in (one, eight)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-4, rtol=1e-3)
