"""Small models of every family, and texts that tokenizers trip over."""

from __future__ import annotations

import random

import torch

from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.config import ModelConfig, RopeScaling
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer

STRETCHED = RopeScaling(factor=8.0, low=1.0, high=4.0, original=32)
FAMILIES: dict[str, dict] = {
    "llama": {"family": "llama"},
    "llama-untied-biased-stretched": {
        "family": "llama",
        "tie_embeddings": False,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_scaling": STRETCHED,
    },
    "qwen3": {"family": "qwen3", "head_dim": 24},  # 4 heads of 24 are wider than the model
    "qwen2": {"family": "qwen2"},
    "gpt2": {"family": "gpt2", "heads": 4, "kv_heads": 4, "head_dim": 16},
    "nanochat": {"family": "nanochat", "softcap": 15.0, "tie_embeddings": False},
}

PROMPTS = ["", "hello wörld", "the fox", "42", "says 'x'", "quick 🙂", "b", "zzz", "brown"]

_HARD = [
    "",
    "  ",
    " \n  x",
    "a\r\n\r\n b \n",
    "don't DON'T 'S 'ſ ’s",
    "123456 ١٢٣٤ ½ Ⅷ 7 42",
    "\u2028x\u0085y\u00a0z",
    "🙂👩‍👩‍👧 e\u0301 ﬁ ßẞ",
    "<|im_end|> <|endoftext|>",
    "\ufffd\u2581x",
]


def made(name: str, tokenizer: Tokenizer, **changes: object) -> Transformer:
    """Random weights; three rows more than the tokenizer has tokens, as published models have."""
    shape = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp_width": 96, "context": 90}
    shape |= {"vocab_size": tokenizer.vocab_size + 3}
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**(shape | FAMILIES[name] | changes)))  # type: ignore[arg-type]
    for name, p in model.named_parameters():
        torch.nn.init.normal_(p, mean=1.0 if "norm.weight" in name else 0.0, std=0.25)
    return model.eval()


def greedy(model: Transformer, tokenizer: Tokenizer, prompt: list[int], new: int) -> list[int]:
    """What our own engine makes of it."""
    engine = Engine(model, tokenizer, "fp32")
    return engine.generate([prompt], Sampling(max_new_tokens=new, temperature=0.0))[0][0].ids


def hard_texts(random_ones: int, highest: int = 0x110000) -> list[str]:
    """Texts without NUL, most of them random: of the characters that split patterns look for, and of all
    below `highest`."""
    dice = random.Random(0)
    looked_for = " \n\r\t'sSdDlLvVrReE12３½aZé中\u0300.,!/🙂\u00a0\u3000"
    points = [*range(1, 0xD800), *range(0xE000, highest)]
    found = list(_HARD)
    for _ in range(random_ones):
        found.append("".join(dice.choices(looked_for, k=dice.randint(1, 40))))
        found.append("".join(map(chr, dice.choices(points, k=20))))
    return found
