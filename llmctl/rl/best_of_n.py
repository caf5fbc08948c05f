"""Best-of-n: answer each problem n times and keep the best reply, or the order of all n. Nothing is trained. The best
are conversations, which `sft` learns from: rejection sampling, as between DeepSeek-R1's two rounds of RL (arXiv
2501.12948, 2.3.3). The order is comparisons, for `rm` and dpo (`rankings`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from math import comb
from typing import Any

from llmctl.console import Console
from llmctl.model.chat_format import WRAPS
from llmctl.rl import rankings
from llmctl.rl.config import RlConfig
from llmctl.rl.rewards import Rollout
from llmctl.rl.rollouts import Writer, chosen
from llmctl.rl.tasks import Task
from llmctl.rl.watch import mean
from llmctl.train import distributed
from llmctl.verify import check
from llmctl.workspace import Build
from llmctl.workspace.files import write_atomic

_CALL = re.compile(r"<\|(search|python|output)_start\|>(.*?)<\|\1_end\|>", re.DOTALL)


def run(config: RlConfig, build: Build, console: Console, task: Task, writer: Writer) -> None:
    """Write `train.jsonl` and `heldout.jsonl`, a part at a time: a killed run goes on with the next part."""
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "heldout": []}
    how, turns = config.rollouts, config.train.steps
    with console.progress("rl: best-of-n", turns + 1, "parts") as bar:
        for turn in range(turns + 1):
            file = build.scratch / f"part-{turn:06d}.json"
            if distributed.agree(int(not file.exists())):  # process 0 writes, and knows what there is
                items, seed = (task.held_out(config.eval_items), 0) if turn == turns else task.draw(turn)
                groups = writer.scored(items, how.group, seed, how.temperature) if items else []
                write_atomic(file, json.dumps([row_of(g, config.method.keep) for g in groups]))
            if not distributed.rank():
                parts["heldout" if turn == turns else "train"] += json.loads(file.read_text(encoding="utf-8"))
            bar.advance(1)
    if distributed.rank():
        return
    for name, rows in parts.items():
        kept = kept_of(rows, config.method.keep)
        # Of rankings no empty part: rm and dpo then hold out some of the others.
        if kept or name == "train" or config.method.keep != "ranking":
            write_atomic(build.path / f"{name}.jsonl", "".join(json.dumps(r) + "\n" for r in kept))
    build.figures |= figures(config, task, parts)
    if config.method.keep == "ranking" and not build.figures["kept"]:
        console.warn("rl: no problem has two replies of different reward, so there is nothing to compare")


def kept_of(rows: list[dict[str, Any]], keep: str) -> list[dict[str, Any]]:
    """The rows to write. A problem that was drawn twice has one conversation, but two rankings of other replies."""
    found = [r["row"] for r in rows if r["row"]]
    key = (lambda row: json.dumps(row)) if keep == "ranking" else (lambda row: row["id"])
    return list({key(row): row for row in found}.values())


def row_of(group: Sequence[Rollout], keep: str) -> dict[str, Any]:
    """What is kept of a group as a row to write (None where nothing is), and what the group shows."""
    best = max(group, key=lambda r: (r.total == r.total, r.total))
    return {"right": sum(r.correct for r in group), "of": len(group), "best": best.correct,
            "majority": majority(group), "reward": best.total, "mean": mean(r.total for r in group),
            "row": made(group, keep)}  # fmt: skip


def made(group: Sequence[Rollout], keep: str) -> dict[str, Any] | None:
    """The best reply (or the best right one) as a row of conversations, or all in order as a row of comparisons."""
    if keep == "ranking":
        texts = [content(r.sample.text) for r in group]
        # A comparison holds plain text: one whose replies call tools nobody can read yet (`formats.comparisons`).
        return rankings.ranking(group, [text if isinstance(text, str) else None for text in texts])
    if keep == "best":
        kept = next(iter(chosen(group, keep)), None)
    else:
        kept = max((r for r in group if r.correct), key=lambda r: r.total, default=None)
    return conversation(kept) if kept else None


def majority(group: Sequence[Rollout]) -> bool:
    """Whether the answer that most replies give is right (self-consistency, arXiv 2203.11171)."""
    said = [check(r.item, r.sample.text).answer for r in group if r.item.check and r.item.check != "code"]
    votes = Counter(answer for answer in said if answer is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]
    return any(r.correct and answer == winner for r, answer in zip(group, said, strict=True))


def conversation(r: Rollout) -> dict[str, Any]:
    """The problem with the reply in place of its worked solution."""
    reply = {"role": "assistant", "content": content(r.sample.text)}
    return {**r.item.row(), "messages": [*rankings.prompt_turns(r), reply]}


def content(text: str) -> str | list[dict[str, str]]:
    """A reply's text as a message's content: in parts where it calls tools."""
    if not _CALL.search(text):
        return text
    parts, at = [], 0
    for call in _CALL.finditer(text):
        assert call[1] in WRAPS
        parts += [{"type": "text", "text": text[at : call.start()]}, {"type": call[1], "text": call[2]}]
        at = call.end()
    parts.append({"type": "text", "text": text[at:]})
    return [p for p in parts if p["text"] or p["type"] != "text"]


def pass_at(k: int, n: int, right: int) -> float:
    """The chance that one of k replies is right, from n of which `right` are (arXiv 2107.03374, equation 1)."""
    return 1 - comb(n - right, k) / comb(n, k)


def figures(config: RlConfig, task: Task, parts: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the manifest says: one reply, the best of n, the majority, and whether any of n is right."""
    n, train, measured = config.rollouts.group, parts["train"], parts["heldout"] or parts["train"]
    kept = sum(bool(r["row"]) for r in train)
    found = {
        "pass_at_1": mean(r["right"] / r["of"] for r in measured),
        f"best_of_{n}": mean(r["best"] for r in measured),
        "majority": mean(r["majority"] for r in measured),
        f"pass_at_{n}": mean(pass_at(n, r["of"], r["right"]) for r in measured),
        "reward_mean": mean(r["mean"] for r in measured),
        "reward_best": mean(r["reward"] for r in measured),
    }
    judged = any(item.check for item in task.held_out(1))
    one, best = (found["pass_at_1"], found[f"best_of_{n}"]) if judged else (found["reward_mean"], found["reward_best"])
    scale, unit = (100, "%") if judged else (1, "")
    head = {"label": f"held-out {task.name}: one reply, best of {n}", "before": round(scale * one, 2),
            "after": round(scale * best, 2), "unit": unit}  # fmt: skip
    out = f"{kept:,} conversations"
    if config.method.keep == "ranking":
        found |= rankings.figures(parts)
        out = f"{kept:,} rankings, {found['pairs']:,} pairs; {found['spread']:.0%} of the problems have a spread"
    return {"headline": head, "in": f"{config.model}, {len(train):,} problems x {n}", "out": out, "kept": kept, **found}
