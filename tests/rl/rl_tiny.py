"""A model so small that a stage run takes seconds, and settings to match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llmctl.model.config import ModelConfig
from llmctl.model.folder import save_model
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.model.transformer import RewardModel, Transformer
from llmctl.rl.config import RlConfig


def tokenizer() -> Tokenizer:
    return train_tokenizer(
        iter(["What is 12 + 34? The answer is 46. How much is it? Compute it. assistant user"] * 3), 290
    )


def shape(vocab_size: int) -> ModelConfig:
    return ModelConfig(vocab_size, layers=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp_width=64, context=96)


def save_tiny(folder: Path, reward: bool = False, seed: int = 0) -> Path:
    tok = tokenizer()
    torch.manual_seed(seed)
    model = Transformer(shape(tok.vocab_size))
    save_model(folder, RewardModel(model) if reward else model, tok)
    return folder


def tiny_config(model: Path, **more: Any) -> RlConfig:
    data: dict[str, Any] = {
        "model": str(model),
        "sums": {"digits": [1, 1]},
        "rollouts": {"prompts": 3, "group": 4, "max_new_tokens": 8},
        "train": {"steps": 4, "save_every": 1, "precision": "fp32"},
        "eval_items": 4,
        "show_every": 2,
        "micro_tokens": 64,
    }
    return RlConfig.model_validate(data | more)
