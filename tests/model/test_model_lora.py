"""Low-rank adapters: the formula, where they sit, what is trained, and the merge."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmctl.errors import UserError
from llmctl.model.config import ModelConfig
from llmctl.model.lora import LoraLinear, add_adapters, merge_adapters
from llmctl.model.transformer import Transformer

FAMILIES = ["qwen3", "qwen2", "llama", "nanochat", "gpt2"]


def made(family: str = "qwen3", tied: bool = True) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(40, 2, 32, 2, 2, 16, 48, 16, family=family, tie_embeddings=tied))  # type: ignore[arg-type]
    for p in model.parameters():
        nn.init.normal_(p, std=0.2)
    return model.eval()


def shaken(model: Transformer) -> Transformer:
    """With adapters that do something."""
    for name, p in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(p, std=0.3)
    return model


X = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(1))


def logits(model: Transformer) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(X))


def test_the_formula() -> None:
    torch.manual_seed(0)
    base, x = nn.Linear(6, 4), torch.randn(3, 6)
    layer = LoraLinear(base, rank=2, alpha=5.0, dropout=0.0)
    assert torch.equal(layer(x), base(x)), "B begins at zero"
    nn.init.normal_(layer.lora_B)
    wanted = x @ (base.weight + 5.0 / 2 * layer.lora_B @ layer.lora_A).T + base.bias
    torch.testing.assert_close(layer(x), wanted)
    whole = layer.merged()
    assert isinstance(whole, nn.Linear)
    torch.testing.assert_close(whole(x), wanted)


def test_dropout_acts_on_the_adapters_input_in_training_alone() -> None:
    torch.manual_seed(0)
    layer, x = LoraLinear(nn.Linear(6, 4), 2, 2.0, dropout=0.5), torch.randn(3, 6)
    nn.init.normal_(layer.lora_B)
    torch.manual_seed(3)
    found = layer.train()(x)
    torch.manual_seed(3)
    wanted = layer.base(x) + F.dropout(x, 0.5) @ layer.lora_A.T @ layer.lora_B.T
    torch.testing.assert_close(found, wanted)
    assert torch.equal(layer.eval()(x), layer.eval()(x))


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_and_unmerged_are_one_model(family: str) -> None:
    model = made(family)
    before, names = logits(model), set(model.state_dict())
    add_adapters(model, rank=3, alpha=6.0, dropout=0.3)
    torch.testing.assert_close(logits(model.eval()), before, atol=0, rtol=0)
    apart = logits(shaken(model))
    assert (apart - before).abs().max() > 0.1
    merge_adapters(model)
    assert (logits(model) - apart).abs().max() < 1e-5
    assert set(model.state_dict()) == names and all(p.requires_grad for p in model.parameters())


def test_only_adapters_have_gradients_and_all_of_them() -> None:
    model = made()
    put = add_adapters(model, rank=2, alpha=2.0)
    assert len(put) == 2 * 7
    model.logits(shaken(model)(X)).sum().backward()
    learned = {n for n, p in model.named_parameters() if p.grad is not None}
    assert learned == {n for n, p in model.named_parameters() if p.requires_grad}
    assert learned == {f"layers.{n}.lora_{m}" for n in put for m in "AB"}


@pytest.mark.parametrize("tied", [True, False])
def test_targets_and_tables(tied: bool) -> None:
    model = made(tied=tied)
    put = add_adapters(model, 2, 2.0, targets=["q_proj", "down_proj"], tables=True)
    assert {n.rpartition(".")[2] for n in put} == {"q_proj", "down_proj"} and len(put) == 4
    whole = {n for n, p in model.named_parameters() if p.requires_grad and "lora" not in n}
    assert whole == {"embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    with pytest.raises(UserError, match="no layer 'qproj'") as told:
        add_adapters(made(), 2, 2.0, targets=["qproj"])
    assert "q_proj" in str(told.value)


def test_it_is_pefts() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    theirs = nn.ModuleDict({"q_proj": nn.Linear(6, 4)})
    ours = LoraLinear(nn.Linear(6, 4), rank=2, alpha=5.0, dropout=0.0)
    ours.base.load_state_dict(theirs["q_proj"].state_dict())
    wrapped = peft.inject_adapter_in_model(peft.LoraConfig(r=2, lora_alpha=5, target_modules=["q_proj"]), theirs)
    layer = wrapped["q_proj"]
    with torch.no_grad():
        nn.init.normal_(ours.lora_B)
        layer.lora_A["default"].weight.copy_(ours.lora_A)
        layer.lora_B["default"].weight.copy_(ours.lora_B)
    x = torch.randn(3, 6)
    torch.testing.assert_close(ours(x), layer(x))
