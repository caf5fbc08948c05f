"""What the dial sets besides the shape: the budget of tokens, the batch, the learning rates. Each rule is one line with
its evidence; a setting that is given replaces it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmctl.model.config import ModelConfig
from llmctl.pretrain.config import PretrainConfig
from llmctl.train.settings import OptimizerSettings

# The batch grows with the root of the tokens: the critical batch size does (exponent 0.47, arXiv:2410.21676), and the
# rule then meets both what was measured here (4,096 at a million tokens) and GPT-2's half a million at ten billion.
_BATCH, _BATCH_AT = 4096, 1e6
_MATRIX_LR = 0.02  # Muon's step is relative to the weights: measured here at width 256, published for 768
# AdamW's, measured here at width 256; by the root of the width, as nanochat scales them.
_LR, _EMBEDDING_LR, _HEAD_LR, _AT = 0.02, 0.3, 0.01, 256
# AdamW's second moment: GPT-3's 0.95 at half a million tokens an update. Smaller updates are noisier and have to be
# remembered for longer (arXiv 2507.07101), by the root of their size, but no longer than a fifth of the run: 586
# updates of 2,048 tokens gave 1.864 bits a byte with 0.95, 1.836 with 0.99 and 1.839 with 0.997.
_FORGETS, _FORGETS_AT, _FORGETS_A_RUN = 0.05, 524288, 5.0


@dataclass(frozen=True)
class Derived:
    """What a run will do: updates of `rows` rows, the optimizer, and a line of reason for each thing that was set."""

    rows: int
    steps: int
    optimizer: OptimizerSettings
    reasons: list[tuple[str, str]]


def derive(config: PretrainConfig, shape: ModelConfig, there: int) -> Derived:
    """From the settings, the shape and the number of tokens `there`."""
    budget, why_budget = _budget(config, shape, there)
    batch, why_batch = _batch(config, budget)
    rows = max(1, round(batch / config.context))
    steps = config.train.steps or max(1, round(budget / (rows * config.context)))
    optimizer, why_rates = _optimizer(config, shape)
    betas, why_betas = _betas(config.train.optimizer, rows * config.context, steps)
    why_steps = "given" if config.train.steps else why_budget
    reasons = [
        ("budget", why_steps),
        ("batch", f"{rows * config.context:,} tokens ({rows} rows of {config.context}): {why_batch}"),
        ("updates", f"{steps:,}"),
        ("learning rates", why_rates),
        ("AdamW's memory", why_betas),
        ("weight decay", f"{optimizer.weight_decay:g} of the matrices, at every size"),
    ]
    return Derived(rows, steps, optimizer.model_copy(update={"betas": betas}), reasons)


def _budget(config: PretrainConfig, shape: ModelConfig, there: int) -> tuple[float, str]:
    wanted, most = config.tokens_per_parameter * shape.parameters(), config.max_epochs * there
    if config.train.steps and config.batch_tokens:
        return float(config.train.steps * config.batch_tokens), "given"
    if wanted <= most:
        return wanted, f"{config.tokens_per_parameter:g} a parameter"
    return most, f"{config.max_epochs:g} times through the data ({config.tokens_per_parameter:g} a parameter is more)"


def _batch(config: PretrainConfig, budget: float) -> tuple[int, str]:
    if config.batch_tokens:
        return config.batch_tokens, "given"
    exact = _BATCH * math.sqrt(budget / _BATCH_AT)
    rounded = 2 ** max(0, round(math.log2(exact)))
    return max(rounded, config.context), f"{_BATCH:,} x sqrt(tokens / 1,000,000), to the next power of two"


def _optimizer(config: PretrainConfig, shape: ModelConfig) -> tuple[OptimizerSettings, str]:
    given, by_width = config.train.optimizer, math.sqrt(_AT / shape.width)
    chosen, said = {"lr": given.lr or _LR * by_width}, [_said("AdamW", given.lr, _LR, by_width)]
    if given.name == "muon":
        chosen["matrix_lr"] = given.matrix_lr or _MATRIX_LR
        said.insert(0, f"Muon {chosen['matrix_lr']:g} ({'given' if given.matrix_lr else 'at every size'})")
    if given.name == "muon" and not shape.tie_embeddings:
        chosen["embedding_lr"] = given.embedding_lr or _EMBEDDING_LR * by_width
        chosen["head_lr"] = given.head_lr or _HEAD_LR * by_width
        said.append(_said("embedding", given.embedding_lr, _EMBEDDING_LR, by_width))
        said.append(_said("head", given.head_lr, _HEAD_LR, by_width))
    return given.model_copy(update=chosen), ", ".join(said)


def _betas(given: OptimizerSettings, batch: int, steps: int) -> tuple[tuple[float, float], str]:
    first, second = given.betas
    if second:
        return (first, second), f"betas {first:g}, {second:g} (given)"
    forgets = min(_FORGETS, max(_FORGETS * math.sqrt(batch / _FORGETS_AT), _FORGETS_A_RUN / steps))
    second = round(1 - forgets, 4)
    why = f"1 - {_FORGETS} x sqrt(batch / {_FORGETS_AT:,}), {_FORGETS_A_RUN:g} / updates at least"
    return (first, second), f"betas {first:g}, {second:g} ({why})"


def _said(what: str, given: float, at_256: float, by_width: float) -> str:
    return f"{what} {given or at_256 * by_width:.3g} ({'given' if given else f'{at_256:g} x sqrt({_AT} / width)'})"
