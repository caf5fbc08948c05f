"""Model folders in Hugging Face's layout, which transformers, vLLM and llama.cpp's converter load as they are.

Weights are safetensors only: nothing is ever unpickled. What is read is checked, and what is wrong is named. Wherever a
folder is read, `hf:org/name` is one too, and so is llama2.c's file.
"""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llmctl.errors import UserError
from llmctl.model import llama2c, names
from llmctl.model.chat_format import end_of_turn
from llmctl.model.config import ModelConfig
from llmctl.model.hub import local
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import RewardModel, Transformer
from llmctl.workspace.files import fsync_file, write_atomic, write_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
REWARD_BIAS, REWARD_GAIN = "reward_bias", "reward_gain"  # keys of config.json, which transformers keeps and ignores


def save_model(
    path: str | Path,
    model: Transformer | RewardModel,
    tokenizer: Tokenizer,
    card: str = "",
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a model folder; each file appears whole or not at all.

    `card` is the body of the model card (README.md); `extra` goes into `config.json`.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    reward = isinstance(model, RewardModel)
    ids = _token_ids(tokenizer)
    write_json(path / "config.json", model.config.to_hf(reward) | ids | (extra or {}))
    if not reward:
        # Generation ends at the end of a document and, in a chat, of the assistant's turn.
        turn = end_of_turn(tokenizer) if tokenizer.chats else None
        ends = [ids["eos_token_id"]] + ([turn] if turn not in (None, ids["eos_token_id"]) else [])
        write_json(path / "generation_config.json", ids | {"eos_token_id": ends, "do_sample": True})
    tokenizer.save(path)
    write_atomic(path / "README.md", _card(path.name, model, card))
    _write_weights(path / WEIGHTS, _named(model))


def load_model(path: str | Path) -> tuple[Transformer, Tokenizer]:
    """The model (float32, in evaluation mode) and its tokenizer. UserError names what is wrong with the folder."""
    path, config = _open(path, reward=False)
    with torch.device("meta"):
        model = Transformer(config)
    _fill(model, _read_weights(path, config), path)
    return model.eval(), _tokenizer(path, config)


def load_reward_model(path: str | Path) -> tuple[RewardModel, Tokenizer]:
    """The reward model (float32, in evaluation mode) and its tokenizer. UserError names what is wrong."""
    path, config = _open(path, reward=True)
    with torch.device("meta"):
        model = RewardModel(Transformer(config))
    model.backbone.lm_head = None  # a reward model predicts no tokens, and its folder holds no head
    found = _read_weights(path, config).items()
    _fill(model, {n if n.startswith("score.") else f"backbone.{n}": t for n, t in found}, path)
    return model.eval(), _tokenizer(path, config)


def reward_scale(path: str | Path) -> tuple[float, float]:
    """(bias, gain) of a reward model: gain * score + bias has mean 0 and standard deviation 1 over what it was scaled
    on. (0, 1) where `config.json` says nothing: another's model, whose scores are its rewards.
    """
    config = read_config(path)
    bias, gain = (config.get(key, usual) for key, usual in ((REWARD_BIAS, 0.0), (REWARD_GAIN, 1.0)))
    if not all(isinstance(n, (int, float)) and isfinite(n) for n in (bias, gain)) or gain <= 0:
        raise UserError(f"damaged: {REWARD_GAIN} {gain!r}, {REWARD_BIAS} {bias!r}", str(Path(path) / "config.json"))
    return float(bias), float(gain)


def is_reward_model(path: str | Path) -> bool:
    """Whether the folder's model scores (rather than writes) text."""
    named = read_config(path).get("architectures")
    return isinstance(named, list) and any(str(n).endswith("ForSequenceClassification") for n in named)


def _open(path: str | Path, reward: bool) -> tuple[Path, ModelConfig]:
    path = local(path)
    if is_reward_model(path) != reward:
        raise UserError(
            "this is a reward model: it scores text" if not reward else "this is no reward model: it has no score head",
            str(path),
            "give a model that writes text" if not reward else "train one with `llmctl rm`",
        )
    return path, ModelConfig.from_hf(read_config(path), str(path / "config.json"))


def read_config(path: str | Path) -> dict[str, Any]:
    """`config.json` of a model folder. UserError where it is missing or damaged."""
    path = local(path)
    if path.suffix == llama2c.SUFFIX:
        return llama2c.read_config(path)
    file = path / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"cannot read it: {e.strerror}", str(file), "a model is a folder with config.json") from e
    except ValueError as e:
        raise UserError(f"damaged: {e}", str(file)) from e
    if not isinstance(found, dict):
        raise UserError("damaged: not a JSON object", str(file))
    return found


def _tokenizer(path: Path, config: ModelConfig) -> Tokenizer:
    tokenizer = Tokenizer.load(path)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size}: not made for each other",
            str(path / "tokenizer.json"),
        )
    return tokenizer


def _token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.eos_id,
    }


def _named(model: Transformer | RewardModel) -> dict[str, Tensor]:
    """The weights under the names they are published with."""
    found = {n.removeprefix("backbone."): t for n, t in model.state_dict().items()}
    if isinstance(model, RewardModel):
        found.pop("lm_head.weight", None)  # it predicts no tokens
    return names.to_published(found, model.config.family)


def _write_weights(file: Path, weights: dict[str, Tensor]) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    save_file({n: t.detach().cpu().contiguous() for n, t in weights.items()}, temporary, metadata={"format": "pt"})
    fsync_file(temporary)
    temporary.replace(file)


def _read_weights(path: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Every tensor under our names, as float32."""
    if path.suffix == llama2c.SUFFIX:
        return llama2c.read_weights(path)
    found: dict[str, Tensor] = {}
    for file in _weight_files(path):
        try:
            with safe_open(file, framework="pt") as f:
                for name in f.keys():  # noqa: SIM118 - it is no dict
                    found[name] = f.get_tensor(name).float()
        except (OSError, SafetensorError) as e:
            raise UserError(f"missing or damaged: {e}", str(file), "get the file again") from e
    return names.from_published(found, config.family)


def _weight_files(path: Path) -> list[Path]:
    if (path / WEIGHTS).exists():
        return [path / WEIGHTS]
    if not (path / INDEX).exists():
        raise UserError(f"the folder has no {WEIGHTS}", str(path), "weights are read from safetensors only")
    try:
        files = sorted(set(json.loads((path / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as e:
        raise UserError(f"damaged: {e!r}", str(path / INDEX)) from e
    if any(Path(f).name != f for f in files):
        raise UserError("damaged: it names files outside the folder", str(path / INDEX))
    return [path / f for f in files]


def _fill(model: torch.nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Put `weights` into a model that is on the meta device."""
    wanted = {n: t.shape for n, t in model.state_dict().items()}
    if "lm_head.weight" not in wanted:
        weights.pop("lm_head.weight", None)  # some folders store the tied head twice
    for name, shape in wanted.items():
        if name not in weights:
            raise UserError(f"the weights lack {name!r}", str(path), "the folder is damaged, or of another model")
        if weights[name].shape != shape:
            raise UserError(
                f"{name!r} has the shape {tuple(weights[name].shape)}; config.json says {tuple(shape)}", str(path)
            )
    unknown = [n for n in weights if n not in wanted]
    if unknown:
        raise UserError(f"the weights hold {unknown[0]!r}, which config.json does not describe", str(path))
    model.load_state_dict({n: weights[n].contiguous() for n in wanted}, assign=True)
    model.requires_grad_(True)


def _card(name: str, model: Transformer | RewardModel, body: str) -> str:
    c = model.config
    head = "---\nlibrary_name: transformers\npipeline_tag: "
    head += "text-classification" if isinstance(model, RewardModel) else "text-generation"
    facts = (
        f"{c.parameters():,} parameters: {c.family}, {c.layers} layers, width {c.width}, {c.heads} heads, "
        f"vocabulary {c.vocab_size:,}, context {c.context:,}. Made with llmctl."
    )
    return f"{head}\ntags:\n- llmctl\n---\n\n# {name}\n\n{facts}\n" + (f"\n{body.strip()}\n" if body.strip() else "")
