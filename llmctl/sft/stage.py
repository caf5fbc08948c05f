"""`sft`: from a base model to an assistant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.generate.engine import Engine
from llmctl.model.chat_format import OURS, format_of
from llmctl.model.folder import load_model, save_model
from llmctl.model.lora import add_adapters, merge_adapters
from llmctl.model.tokenizer import Tokenizer
from llmctl.model.transformer import Transformer
from llmctl.model.vocabulary import for_conversations
from llmctl.sft.answers import Questions
from llmctl.sft.config import SftConfig
from llmctl.sft.data import Data, Rendered, calls_tools, load, rendered
from llmctl.sft.shown import bracketed, show
from llmctl.train import distributed, estimate
from llmctl.train.device import best_device
from llmctl.train.evaluate import mean_loss
from llmctl.train.loop import Hook, Outcome, train
from llmctl.train.loss import lm_loss
from llmctl.train.packing import Packed, PackedSource, pack, statistics
from llmctl.train.settings import TrainSettings
from llmctl.workspace import Artifact, Workspace
from llmctl.workspace.files import write_atomic

_HELD_OUT_ROWS = 64  # packed rows that the held-out loss is taken over
_NAMED = 5  # of each kind of trouble in the data; all of them stand in the model's folder


@dataclass
class Job:
    """What a run is made of, worked out from the settings, the model and the conversations."""

    config: SftConfig
    model: Transformer
    tokenizer: Tokenizer
    data: Data
    examples: Rendered
    packed: Packed
    heldout: Packed
    rows: int
    settings: TrainSettings  # with the steps filled in
    added: int  # tokens that the model did not know

    @property
    def at_once(self) -> int:
        """Rows in one pass. Under torchrun passes are of about one size: each process must get rows of every one."""
        most = self.config.rows_at_once
        return most if distributed.size() == 1 else -(-self.rows // -(-self.rows // most))


def job(config: SftConfig, workspace: Workspace) -> Job:
    """Read, render and pack. UserError where nothing is left to train on."""
    model, known = load_model(workspace.resolve(config.model, ("model",), files=True).path)
    length = config.context or model.config.context
    if length > model.config.context:
        raise UserError(
            f"context is {length:,}; model {config.model!r} was made for {model.config.context:,}",
            fix=f"--set context={model.config.context}",
        )
    drop = config.answer_first == "drop"
    data = load(config.conversations, config.heldout_share, workspace, config.trees, config.values, drop)
    if data.silent and config.unanswered == "error":
        raise UserError(
            f"{len(data.silent):,} conversations have nothing to train on, the first: {data.silent[0]}",
            fix="take them out, or --set unanswered=skip",
        )
    model, tokenizer = for_conversations(model, known, calls_tools([*data.train, *data.heldout]))
    examples = rendered(data.train, tokenizer, length)
    if not examples.examples:
        raise UserError(
            f"nothing to train on: all {examples.too_long:,} conversations are longer than {length:,} tokens",
            ", ".join(config.conversations),
        )
    packed = pack(examples.examples, length)
    rows = min(max(1, round(config.batch_tokens / length)), len(packed))
    steps = config.train.steps or max(1, round(config.epochs * len(packed) / rows))
    heldout = pack(rendered(data.heldout, tokenizer, length).examples, length)
    settings = config.train.model_copy(update={"steps": steps})
    added = tokenizer.vocab_size - known.vocab_size
    return Job(config, model, tokenizer, data, examples, packed, heldout, rows, settings, added)


def run(config: SftConfig, workspace: Workspace, console: Console) -> Artifact:
    """Fine-tune the model that `config` names and save it as another."""
    work = job(config, workspace)
    say(work, console)
    source = PackedSource(work.packed, work.rows, work.at_once, config.seed)
    with workspace.build(config) as build:
        model = adapted(work).to(best_device())
        questions = Questions(
            Engine(model, work.tokenizer, config.train.precision), work.data, config.eval_items, config.eval_new_tokens
        )
        if questions.tools is not None and (off := questions.tools.off()):
            console.warn(off)
        hooks = [Hook(config.eval_every, HeldOutLoss(work)), Hook(0, Asked(questions, console))]
        outcome = train(model, source, lm_loss, work.settings, build=build, console=console, title="sft", hooks=hooks)
        learned = learning(model)
        if config.lora:
            merge_adapters(model)
        if work.data.skipped:
            write_atomic(build.path / "left_out.txt", "".join(f"{line}\n" for line in work.data.skipped))
        build.figures |= {**figures(work, outcome, build.metrics.rows()), "trained_parameters": learned}
        save_model(build.path, model, work.tokenizer, card(work, build.figures))
    return build.done()


def adapted(work: Job) -> Transformer:
    """The model to train, with adapters where the settings ask for them."""
    lora = work.config.lora
    if lora:
        torch.manual_seed(work.config.seed)
        tables = lora.tables is True or (lora.tables == "auto" and work.added > 0)
        add_adapters(work.model, lora.rank, lora.alpha, lora.dropout, lora.targets, tables)
    return work.model


def learning(model: Transformer) -> int:
    """Parameters that are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def plan(config: SftConfig, workspace: Workspace) -> list[tuple[str, str]]:
    """What a run would do and cost."""
    work = job(config, workspace)
    found, length = statistics(work.packed), work.packed.ids.shape[1]
    shape, tokens = work.model.config, work.settings.steps * work.rows * length
    return [
        ("model", f"{config.model}, {shape.parameters():,} parameters"),
        *([("adapters", f"rank {config.lora.rank}; {learning(adapted(work)):,} parameters")] if config.lora else []),
        ("chat format", form_of(work)),
        ("conversations", f"{len(work.examples.examples):,} to train on, {len(work.data.heldout):,} held out"),
        ("read as", "; ".join(work.data.formats)),
        ("left out", left_out(work) + (f"; the first: {work.data.skipped[0]}" if work.data.skipped else "")),
        ("example, learned in [[ ]]", bracketed(work.examples.examples[0], work.tokenizer)),
        ("packed", f"{found['rows']:,} rows of {length}, {found['filled']:.0%} full"),
        ("learned", f"{found['trained_tokens']:,} of {found['tokens']:,} tokens"),
        ("updates", f"{work.settings.steps:,} of {work.rows} rows"),
        *estimate.rows(shape, tokens, min(work.rows, config.rows_at_once), length, work.settings),
    ]


@dataclass
class HeldOutLoss:
    """Loss a trained token on held-out conversations."""

    work: Job

    def __call__(self, step: int, model: Any) -> dict[str, Any]:
        """Measure; nothing where nothing was held out, or another process does it."""
        if distributed.rank():
            return {}
        heldout = self.work.heldout
        rows = range(min(len(heldout), _HELD_OUT_ROWS))
        batches = [heldout.batch(rows[at : at + 16]) for at in range(0, len(rows), 16)]
        return {"heldout_loss": mean_loss(model, batches, self.work.config.train.precision)} if batches else {}


@dataclass
class Asked:
    """The questions before and after, and a line about them."""

    questions: Questions
    console: Console

    def __call__(self, step: int, model: Any) -> dict[str, Any]:
        """Ask them all, in one process."""
        found = {} if distributed.rank() else self.questions.ask()
        if found:
            kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in found["right_by_kind"].items())
            right, formatted = found["heldout_right"], found["heldout_formatted"]
            self.console.info(
                f"sft: update {step:,}, held-out answers right {right:.0%}, in form {formatted:.0%} ({kinds})"
            )
        return found


def say(work: Job, console: Console) -> None:
    """What was read, and what of it is left out."""
    for line in work.data.formats:
        console.info(f"sft: {line}")
    name_first(work.data.skipped, "left out", console)
    name_first([repr(text) for text in work.data.guesses], "states its result before the reasoning", console)
    if work.data.unfilled:
        names = ", ".join(sorted(work.data.unfilled))
        console.warn(f"names in double braces stay in the text: {names}; fill them with --set values.NAME=...")
    show(work.examples.examples[0], work.tokenizer, form_of(work), console)
    found = statistics(work.packed)
    console.info(
        f"sft: {len(work.examples.examples):,} conversations in {found['rows']:,} rows ({found['filled']:.0%} full), "
        f"{work.settings.steps:,} updates of {work.rows} rows; left out: {left_out(work)}"
    )


def name_first(lines: list[str], what: str, console: Console) -> None:
    """The first of them each on a line, and how many there are."""
    for line in lines[:_NAMED]:
        console.warn(f"{what}: {line}")
    if len(lines) > _NAMED:
        console.warn(f"{what}: {len(lines) - _NAMED:,} more, {len(lines):,} in all")


def form_of(work: Job) -> str:
    """The chat format that the model is trained in, by name."""
    return (format_of(work.tokenizer) or OURS).name


def left_out(work: Job) -> str:
    """What of the data is not trained on, and why."""
    found, data = work.examples, work.data
    counts = {
        "unreadable": len(data.skipped),
        "too long": found.too_long,
        "shortened to the answers that fit": found.shortened,
        "that state the result first": data.dropped,
        "with a held-out question": data.overlap,
    }
    return ", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "nothing"


def figures(work: Job, outcome: Outcome, log: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says about the run, from its step log, so that one taken up at its very end has it all."""
    asked = [row for row in log if "heldout_right" in row]
    losses = [row["heldout_loss"] for row in log if row.get("heldout_loss") is not None]
    learned = statistics(work.packed)
    found: dict[str, Any] = {
        "headline": _headline(asked, losses, outcome),
        "in": f"{len(work.examples.examples):,} conversations",
        "out": f"{work.model.config.parameters() / 1e6:.1f} M parameters",
        "conversations": len(work.examples.examples),
        "skipped_rows": len(work.data.skipped),
        "shortened": work.examples.shortened,
        "too_long": work.examples.too_long,
        "answer_first": len(work.data.guesses),
        "chat_format": form_of(work),
        "overlap": work.data.overlap,
        "rows_filled": learned["filled"],
        "trained_tokens": learned["trained_tokens"],
        "updates": outcome.steps,
        "skipped": outcome.skipped,
        "loss_last": outcome.loss,
        "train_seconds": round(outcome.seconds, 1),
        "tokens_per_second": round(outcome.tokens / outcome.seconds) if outcome.seconds else None,
    }
    if losses:
        found |= {"heldout_loss_before": losses[0], "heldout_loss_after": losses[-1]}
    if asked:
        before, after = asked[0], asked[-1]
        found |= {
            "more": [
                {
                    "label": "in form",
                    "before": _percent(before["heldout_formatted"]),
                    "after": _percent(after["heldout_formatted"]),
                    "unit": "%",
                }
            ],
            "right_before": _percent(before["heldout_right"]),
            "right_after": _percent(after["heldout_right"]),
            "formatted_before": _percent(before["heldout_formatted"]),
            "formatted_after": _percent(after["heldout_formatted"]),
            "right_by_kind": {
                kind: {"before": _percent(before["right_by_kind"].get(kind, 0.0)), "after": _percent(share)}
                for kind, share in after["right_by_kind"].items()
            },
        }
    return found


def card(work: Job, found: dict[str, Any]) -> str:
    """The model card's body."""
    head = found["headline"]
    sources = ", ".join(f"`{name}`" for name in work.config.conversations)
    return (
        f"A chat model: `{work.config.model}` fine-tuned on {found['conversations']:,} conversations of {sources}.\n"
        f"{head['label'].capitalize()}: {head['before']} {head['unit']} before, {head['after']} {head['unit']} after.\n"
    )


def _headline(asked: list[dict[str, Any]], losses: list[float], outcome: Outcome) -> dict[str, Any]:
    if asked:
        before, after = (_percent(row["heldout_right"]) for row in (asked[0], asked[-1]))
        return {"label": "held-out answers right", "before": before, "after": after, "unit": "%"}
    if losses:
        return {"label": "held-out loss", "before": round(losses[0], 4), "after": round(losses[-1], 4), "unit": ""}
    return {"label": "training loss", "before": None, "after": round(outcome.loss, 4), "unit": ""}


def _percent(share: float) -> float:
    return round(100 * share, 1)
