"""DPO: preferences learned without roll-outs and without a reward model (arXiv 2305.18290)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.formats.comparisons import read_comparisons
from llmctl.model.chat_format import render
from llmctl.model.folder import load_model, save_model
from llmctl.model.tokenizer import Tokenizer
from llmctl.rl.collate import Rows
from llmctl.rl.config import MethodSettings, RlConfig
from llmctl.rl.losses import dpo, sequence_nll
from llmctl.rl.packs import packed, shape_for
from llmctl.rl.policy import rows_of, token_logprobs, trained
from llmctl.train import distributed
from llmctl.train.batch import Batch
from llmctl.train.device import autocast, best_device
from llmctl.train.loop import Hook, train
from llmctl.train.loss import Loss
from llmctl.train.order import Shuffle
from llmctl.verify import held_out
from llmctl.workspace import Artifact, Workspace


@dataclass(frozen=True)
class Pair:
    """Two replies to one prompt as ids of whole conversations, the better one first."""

    better: list[int]
    worse: list[int]
    prompt: int  # how many of the ids are the prompt's
    share: float  # one over the pairs of its ranking, so that each prompt counts once
    best: float  # the same over those whose better reply is the best of the ranking; 0 where this one's is not


@dataclass
class Pairs:
    """The comparisons of a run, and how many were left out."""

    train: list[Pair]
    heldout: list[Pair]
    tied: int = 0
    too_long: int = 0
    unreadable: int = 0  # rows with fewer than two different replies that are not empty are among them

    @property
    def left_out(self) -> str:
        """What was left out, in words."""
        return f"{self.tied:,} without a better reply, {self.too_long:,} too long, {self.unreadable:,} unreadable"


def run(config: RlConfig, workspace: Workspace, console: Console) -> Artifact:
    """Train the policy on comparisons against its own frozen copy."""
    path = workspace.resolve(config.model, ("model",), files=True).path
    with workspace.build(config) as build:
        model, tokenizer = load_model(path)
        pairs = read_pairs(config, workspace, tokenizer, model.config.context)
        console.info(f"rl: {len(pairs.train):,} pairs to learn from, {len(pairs.heldout):,} held out")
        if pairs.tied or pairs.too_long or pairs.unreadable:
            console.warn(f"rl: comparisons left out: {pairs.left_out}")
        model = model.to(best_device())
        reference = copy.deepcopy(model).requires_grad_(False)
        loss = DpoLoss(reference, config.method)
        source = PairSource(pairs.train, config.rollouts.prompts, config.micro_tokens, config.seed)

        def measure(step: int, _: nn.Module) -> dict[str, Any]:
            found = heldout(config, model, loss, pairs.heldout)
            console.info(f"rl: step {step}, held-out pairs ranked right: {found['heldout_accuracy']:.1%}")
            return found

        hooks = [Hook(config.eval_every, measure, first=False)] if pairs.heldout else []
        train(model, source, loss, config.train, build=build, console=console, title="rl: dpo", hooks=hooks)
        rows = build.metrics.rows()
        build.figures |= figures(config, pairs, rows)
        save_model(build.path, model, tokenizer, f"DPO from `{config.model}`: {build.figures['out']}.\n")
    return build.done()


def read_pairs(config: RlConfig, workspace: Workspace, tokenizer: Tokenizer, context: int) -> Pairs:
    """Every two replies of every ranking. UserError where nothing is left to learn from."""
    pairs = Pairs([], [])
    for value in config.data:
        source = workspace.resolve(value, ("comparisons",), files=True)
        given = hasattr(source, "files") and "heldout.jsonl" in set(source.files())
        for split in ("train", "heldout") if given else ("train",):
            found = read_comparisons(source.path, split)
            pairs.unreadable += len(found.skipped)
            for row in found.rows:
                held = split == "heldout" if given else held_out(str(row["prompt"]))
                (pairs.heldout if held else pairs.train).extend(_pairs(row, tokenizer, context, pairs))
    if not pairs.train:
        raise UserError(
            f"no comparison to learn from ({pairs.left_out})",
            ", ".join(config.data),
            "a comparison needs two replies that differ, one better than the other, that fit into the context",
        )
    return pairs


def _pairs(row: dict[str, Any], tokenizer: Tokenizer, context: int, pairs: Pairs) -> Iterator[Pair]:
    prompt = render(row["prompt"], tokenizer).ids
    whole = [prompt + render([{"role": "assistant", "content": r}], tokenizer).ids for r in row["responses"]]
    ranks = list(enumerate(row["ranking"]))
    ordered = [(i, j) for i, a in ranks for j, b in ranks if a < b]
    if not ordered:
        pairs.tied += 1
    elif max(map(len, whole)) > context:
        pairs.too_long += 1
    else:
        begin = len(render([*row["prompt"], {"role": "assistant", "content": ""}], tokenizer).ids) - 1
        first = min(row["ranking"])
        best = [row["ranking"][i] == first for i, _ in ordered]
        for (i, j), top in zip(ordered, best, strict=True):
            yield Pair(whole[i], whole[j], begin, 1 / len(ordered), top / sum(best))


class PairSource:
    """The pairs of each step: every one once an epoch, in an order that depends on the seed alone."""

    def __init__(self, pairs: Sequence[Pair], count: int, micro_tokens: int, seed: int) -> None:
        self.pairs, self.count, self.micro_tokens = pairs, count, micro_tokens
        self.order = Shuffle(len(pairs), seed)
        if count < distributed.size():
            raise UserError(
                f"{count} pairs a step cannot be divided among {distributed.size()} processes", "rollouts.prompts",
                "take more pairs a step, or fewer processes",
            )  # fmt: skip

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of update `step`."""
        drawn = [self.pairs[i] for _, i in self.order.take(step * self.count, self.count)]
        mine = drawn[distributed.rank() :: distributed.size()]  # a pair stays together
        return [replace(b, divided=distributed.size() > 1) for b in batches(mine, self.micro_tokens)]


def batches(pairs: Sequence[Pair], tokens: int) -> list[Batch]:
    """The pairs packed into micro-batches of at most `tokens` tokens, or of one pair: both replies in one row."""
    rows = collate(pairs)
    longest = max(len(p.better) + len(p.worse) for p in pairs) - 2
    return packed(rows, shape_for(rows, longest, tokens, together=2), together=2)


def collate(pairs: Sequence[Pair]) -> Rows:
    """(2P, T) each: the better and the worse reply of each pair, one below the other. The weights of a reply's tokens
    are the share of its pair, and 0 in the prompt; `units` (2P,) has that share once a pair. `best` as in `Pair`.
    """
    rows = [ids for p in pairs for ids in (p.better, p.worse)]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    weights, best = torch.zeros(ids.shape), torch.zeros(ids.shape)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        pair = pairs[i // 2]
        weights[i, pair.prompt : len(row)], best[i, pair.prompt : len(row)] = pair.share, pair.best
    return {
        "ids": ids[:, :-1].contiguous(),
        "targets": ids[:, 1:].contiguous(),
        "weights": weights[:, 1:].contiguous(),
        "best": best[:, 1:].contiguous(),
        "units": torch.tensor([unit for p in pairs for unit in (p.share, 0.0)]),
        "lengths": torch.tensor([len(row) - 1 for row in rows]),
    }


@dataclass
class DpoLoss:
    """DPO's loss on a batch of pairs, against the frozen `reference`, and -log p a token of the replies that are the
    best of their ranking, times `method.sft_weight`: the better of two bad replies is nothing to imitate.
    """

    reference: nn.Module
    method: MethodSettings

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss, each prompt counting once."""
        whose = rows_of(batch).unique(return_inverse=True)[1]  # the replies here, numbered better, worse, better, ...
        tokens = per_reply(torch.ones(len(whose), device=whose.device), whose)
        share, best = (per_reply(trained(x, batch), whose) / tokens for x in (batch.weights, batch.extra["best"]))
        policy = per_reply(token_logprobs(model, batch, 1.0)[0], whose)
        with torch.no_grad():
            reference = per_reply(token_logprobs(self.reference, batch, 1.0)[0], whose)
        m, better, worse = self.method, slice(0, None, 2), slice(1, None, 2)
        losses, margin = dpo(
            policy[better], policy[worse], reference[better], reference[worse], m.beta, m.label_smoothing
        )
        nll, share, best = sequence_nll(policy[better], tokens[better]), share[better], best[better]
        logs = {"accuracy": (margin > 0).float(), "margin": margin, "chosen": policy[better] - reference[better],
                "rejected": policy[worse] - reference[worse], "chosen_nll": nll}  # fmt: skip
        total = (losses * share + m.sft_weight * nll * best).sum()
        return Loss(total, share.sum(), {k: float((v.detach() * share).sum()) for k, v in logs.items()})


def per_reply(values: Tensor, whose: Tensor) -> Tensor:
    """(R,) sums of a number a trained token (N,) over each reply, whose number `whose` (N,) int64 says."""
    return torch.zeros(int(whose.max()) + 1, device=values.device).index_add(0, whose, values)


@torch.no_grad()
def heldout(config: RlConfig, model: nn.Module, loss: DpoLoss, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The share of held-out pairs that the implicit reward ranks right, and the loss."""
    sums: dict[str, float] = {}
    total = count = 0.0
    device = next(model.parameters()).device
    for batch in batches(pairs[: config.eval_items], config.micro_tokens):
        with autocast(config.train.precision, device):
            found = loss(model, batch.to(device))
        total, count = total + float(found.total), count + float(found.count)
        sums = {k: sums.get(k, 0.0) + v for k, v in found.logs.items()}
    return {"heldout_accuracy": sums["accuracy"] / count, "heldout_loss": total / count}


def figures(config: RlConfig, pairs: Pairs, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says."""
    held = [r for r in rows if "heldout_accuracy" in r]
    last: dict[str, Any] = next((r for r in reversed(rows) if "accuracy" in r), {})
    after = held[-1]["heldout_accuracy"] if held else last.get("accuracy", 0.0)
    # Before training every margin is 0, which ranks nothing: a half, by the toss of a coin.
    head = {"label": "held-out pairs ranked right" if held else "pairs ranked right", "before": 50.0,
            "after": round(100 * after, 1), "unit": "%"}  # fmt: skip
    return {"headline": head, "in": f"{config.model}, {len(pairs.train):,} pairs",
            "out": f"{config.train.steps} steps, {after:.1%} of {len(pairs.heldout):,} held-out pairs ranked right",
            "pairs": len(pairs.train), "heldout_pairs": len(pairs.heldout), "accuracy_after": after,
            "left_out": {"tied": pairs.tied, "too_long": pairs.too_long, "unreadable": pairs.unreadable}}  # fmt: skip
