"""`pretrain`: from tokens to a base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.formats.tokens import TokenReader
from llmctl.generate.engine import Engine
from llmctl.generate.sampling import Sampling
from llmctl.model.config import ModelConfig, dial
from llmctl.model.folder import load_model, save_model
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer
from llmctl.model.vocabulary import with_chat_tokens
from llmctl.pretrain.config import PretrainConfig
from llmctl.pretrain.rules import Derived, derive
from llmctl.pretrain.windows import Windows
from llmctl.train import estimate
from llmctl.train.device import best_device
from llmctl.train.evaluate import bits_per_byte
from llmctl.train.fp8 import check_fp8
from llmctl.train.loop import Hook, Outcome, train
from llmctl.train.loss import lm_loss
from llmctl.train.settings import TrainSettings
from llmctl.workspace import Artifact, Workspace

BITS = "bits_per_byte"
_SHAPE = "width 64 a layer; heads of 64, of 128 from depth 12 on; MLP by the family"


@dataclass
class Job:
    """What a run is made of, worked out from the settings and the tokens; nothing is written yet."""

    config: PretrainConfig
    training: TokenReader
    held_out: TokenReader
    tokenizer: Tokenizer
    start: Transformer | None  # the model to go on from
    shape: ModelConfig
    derived: Derived
    settings: TrainSettings  # with what the rules set

    @property
    def rows(self) -> int:
        """Rows an update."""
        return self.derived.rows

    @property
    def tokens(self) -> int:
        """Tokens that the whole run trains on."""
        return self.settings.steps * self.rows * self.config.context


def job(config: PretrainConfig, workspace: Workspace) -> Job:
    """Read the inputs and settle shape and budget. UserError where they do not fit together."""
    if config.train.fp8:
        check_fp8(best_device())
    tokens = workspace.find(config.tokens, ["tokens"])
    training, held_out = TokenReader(tokens.path, "train"), TokenReader(tokens.path, "val")
    tokenizer = Tokenizer.load(tokens.path / "tokenizer")
    start = _start(config, workspace, tokenizer) if config.init else None
    shape = start.config if start else _shape(config, tokenizer)
    derived = derive(config, shape, training.tokens)
    settings = config.train.model_copy(update={"steps": derived.steps, "optimizer": derived.optimizer})
    return Job(config, training, held_out, tokenizer, start, shape, derived, settings)


def run(config: PretrainConfig, workspace: Workspace, console: Console) -> Artifact:
    """Train the model that `config` describes and save it."""
    work = job(config, workspace)
    source = Windows(work.training, config.context, work.rows, config.rows_at_once, config.seed, config.mask_documents)
    with workspace.build(config) as build:
        torch.manual_seed(config.seed)
        model = (work.start or Transformer(work.shape)).to(best_device())
        console.info(f"pretrain: {summary(work)}")
        hooks = [Hook(config.eval_every, Evaluation(work, console))]
        if config.samples.every and config.samples.prompts:
            hooks.append(Hook(config.samples.every, Samples(work, model, console)))
        outcome = train(
            model,
            source,
            lm_loss,
            work.settings,
            build=build,
            console=console,
            title="pretrain",
            hooks=hooks,
            flops_per_token=work.shape.flops_per_token(config.context),
            parallel=config.train.parallel,
            fp8=config.train.fp8,
        )
        build.figures |= figures(work, outcome, build.metrics.rows())
        save_model(build.path, model, work.tokenizer, card(work, build.figures))
    return build.done()


def plan(config: PretrainConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What a run would do and cost."""
    work = job(config, workspace)
    shape = work.shape
    epochs = work.tokens / max(1, work.training.tokens)
    shown = f"{shape.layers} layers of width {shape.width}, {shape.heads} heads, MLP {shape.mlp_width}"
    return [
        ("model", f"{shown}, vocabulary {shape.vocab_size:,}"),
        ("parameters", f"{shape.parameters():,} ({shape.parameters(embeddings=False):,} without embeddings)"),
        *([] if config.init else [("shape", _SHAPE)]),
        *work.derived.reasons,
        ("data", f"{work.training.tokens:,} tokens, seen {epochs:.2f} times"),
        *estimate.rows(
            shape,
            work.tokens,
            min(work.rows, config.rows_at_once),
            config.context,
            work.settings,
            config.price,
            sharded=config.train.parallel == "fsdp",
        ),
    ]


@dataclass
class Evaluation:
    """Bits a byte on held-out text."""

    work: Job
    console: Console

    def __call__(self, step: int, model: Any) -> dict[str, Any]:
        """Measure; nothing where no text was held out."""
        config = self.work.config
        if self.work.held_out.tokens < 2:
            return {}
        lengths = self.work.tokenizer.byte_lengths()
        found = bits_per_byte(
            model, self.work.held_out, lengths, config.eval_tokens, config.context, config.train.precision
        )
        self.console.info(f"pretrain: update {step:,}, {found:.4f} bits a byte on held-out text")
        return {BITS: found}


class Samples:
    """Continuations of fixed prompts, shown and logged."""

    def __init__(self, work: Job, model: Transformer, console: Console) -> None:
        how = work.config.samples
        self.prompts, self.console = how.prompts, console
        self.engine = Engine(model, work.tokenizer, work.config.train.precision)
        # A base model begins a text after the token that ends the one before.
        self.ids = [[work.tokenizer.bos_id, *work.tokenizer.encode(p)] for p in how.prompts]
        room = work.shape.context - max(map(len, self.ids))
        self.sampling = Sampling(max(1, min(how.new_tokens, room)), how.temperature, seed=work.config.seed)

    def __call__(self, step: int, model: Any) -> dict[str, Any]:
        """Sample once from each prompt."""
        made = self.engine.generate(self.ids, self.sampling)
        found = [prompt + samples[0].text for prompt, samples in zip(self.prompts, made, strict=True)]
        for text in found:
            self.console.info(f"  {step:6,}  {' '.join(text.split())}")
        return {"samples": found}


def summary(work: Job) -> str:
    """One line on what is about to be done."""
    millions = work.shape.parameters() / 1e6
    return (
        f"{millions:.1f} M parameters, {work.settings.steps:,} updates of {work.rows * work.config.context:,} tokens, "
        f"{work.tokens / max(1, work.training.tokens):.1f} times through {work.training.tokens:,}"
    )


def figures(work: Job, outcome: Outcome, log: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says about the run, from its step log, so that one taken up at its very end has it all."""
    bits = [row[BITS] for row in log if row.get(BITS) is not None]
    before, after = (round(bits[0], 4), round(bits[-1], 4)) if bits else (None, None)
    losses = [row["loss"] for row in log if row.get("loss") is not None]
    return {
        "headline": {"label": "bits per byte", "before": before, "after": after, "unit": ""},
        "in": f"{work.training.tokens:,} tokens",
        "out": f"{work.shape.parameters() / 1e6:.1f} M parameters",
        "bits_per_byte_before": before,
        "bits_per_byte_after": after,
        "loss_first": losses[0] if losses else None,
        "loss_last": outcome.loss,
        "parameters": work.shape.parameters(),
        "updates": outcome.steps,
        "skipped": outcome.skipped,
        "tokens": outcome.tokens,
        "epochs": round(outcome.tokens / max(1, work.training.tokens), 3),
        "flops": float(work.shape.flops_per_token(work.config.context) * outcome.tokens),
        "train_seconds": round(outcome.seconds, 1),
        "tokens_per_second": round(outcome.tokens / outcome.seconds) if outcome.seconds else None,
    }


def card(work: Job, found: dict[str, Any]) -> str:
    """The model card's body."""
    shape, config = work.shape, work.config
    lines = [
        f"A base model: it continues text. {shape.layers} layers of width {shape.width}, {shape.parameters():,} "
        f"parameters, context {shape.context}, trained on {found['tokens']:,} tokens of `{config.tokens}`."
    ]
    if config.init:
        lines.append(f"It goes on from `{config.init}`.")
    if found["bits_per_byte_after"] is not None:
        lines.append(f"On held-out text: {found['bits_per_byte_after']} bits a byte.")
    return "\n".join(lines) + "\n"


def _start(config: PretrainConfig, workspace: Workspace, tokenizer: Tokenizer) -> Transformer:
    path = workspace.resolve(config.init, ("model",), files=True).path
    model, its = with_chat_tokens(*load_model(path))
    if its.digest != tokenizer.digest:
        raise UserError(
            f"model {config.init!r} and tokens {config.tokens!r} have different tokenizers",
            fix=f"tokenize the corpus with the model's: llmctl tokenize CORPUS --tokenizer {config.init}",
        )
    if config.context > model.config.context:
        raise UserError(
            f"context is {config.context:,}; model {config.init!r} was made for {model.config.context:,}",
            fix=f"--set context={model.config.context}",
        )
    return model.train()


def _shape(config: PretrainConfig, tokenizer: Tokenizer) -> ModelConfig:
    try:
        return dial(config.depth, tokenizer.vocab_size, config.context, **config.model.model_dump())
    except ValueError as e:
        raise UserError(str(e), "model", "leave sizes at 0 to have them fit") from e
