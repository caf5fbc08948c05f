"""The problems of a run: made by code, or read from conversations and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl.errors import UserError
from llmctl.formats.comparisons import read_comparisons
from llmctl.formats.conversations import read_conversations
from llmctl.model.chat_format import render_prompt
from llmctl.model.tokenizer import Tokenizer
from llmctl.rl.config import RlConfig
from llmctl.train.order import Shuffle
from llmctl.verify import CHECKS, Item, held_out, problems
from llmctl.workspace import Workspace

# The same held-out problems whatever the seed of the run, so that runs with several seeds compare.
_HELD_OUT_SEED = 0
_REDRAW = 7_368_787  # between the seeds of the further draws of a step; a prime, so that they meet no other step's


@dataclass
class Task:
    """Where problems come from. `train` and `heldout` are those that were read; empty where code makes them."""

    config: RlConfig
    train: list[Item] = field(default_factory=list)
    heldout: list[Item] = field(default_factory=list)
    left_out: int = 0

    def draw(self, turn: int, again: int = 0) -> tuple[list[Item], int]:
        """The problems of a turn and the seed of its samples; `again` counts further draws in the same turn. The run's
        seed and these two alone say which.
        """
        seed, n = self.config.seed * 1_000_003 + turn + again * _REDRAW, self.config.rollouts.prompts
        if self.train:
            order = Shuffle(len(self.train), self.config.seed + again)
            return [self.train[i] for _, i in order.take(turn * n, n)], seed
        return problems(self.config.task, n, seed, heldout=False, **self.config.options), seed

    def held_out(self, n: int) -> list[Item]:
        """Held-out problems; fewer than asked for where there are no more."""
        if self.train:
            return self.heldout[:n]
        return problems(self.config.task, n, _HELD_OUT_SEED, heldout=True, **self.config.options)

    @property
    def name(self) -> str:
        """What is practised, for people."""
        return ", ".join(self.config.data) if self.train else self.config.task


def open_task(config: RlConfig, workspace: Workspace, tokenizer: Tokenizer, context: int) -> Task:
    """The task that the settings name. UserError where nothing in its data can be practised."""
    if not config.data:
        return Task(config)
    task = Task(config)
    longest = context - config.rollouts.max_new_tokens
    for item in _read(config, workspace):
        if len(prompt_of(item, tokenizer, config.rollouts.template)) > longest:
            task.left_out += 1
        else:
            (task.heldout if item.heldout else task.train).append(item)
    if not task.train:
        raise UserError(
            f"no prompt to practise on ({task.left_out:,} leave no room for a reply of "
            f"{config.rollouts.max_new_tokens} tokens in the context of {context:,})",
            ", ".join(config.data),
        )
    answered = sum(bool(i.check) for i in task.train)
    if not answered and not config.gameable:
        raise UserError(
            "no row has an `answer` and a `check`, so nothing says which replies are good",
            ", ".join(config.data),
            "name a reward model (`reward`) or a function (`function`), or give the rows answers",
        )
    return task


def _read(config: RlConfig, workspace: Workspace) -> list[Item]:
    found: dict[str, Item] = {}
    for value in config.data:
        source = workspace.resolve(value, ("conversations", "comparisons"), files=True)
        given = hasattr(source, "files") and "heldout.jsonl" in set(source.files())
        for split in ("train", "heldout") if given else ("train",):
            if split == "heldout" and not (source.path / "heldout.jsonl").stat().st_size:
                continue  # best-of-n that got no held-out problem right
            for row in _rows(source, split):
                item = _item(row, split == "heldout" if given else None)
                if item is not None:
                    found.setdefault(item.id, item)
    return list(found.values())


def _rows(source: Any, split: str) -> Sequence[dict[str, Any]]:
    """Rows with `messages` or `prompt`; what both readers cannot read is UserError."""
    kind = getattr(source, "kind", "")
    if kind != "conversations":
        try:
            return read_comparisons(source.path, split).rows
        except UserError:
            if kind == "comparisons":
                raise
    return read_conversations(source.path, split).rows


def _item(row: dict[str, Any], heldout: bool | None) -> Item | None:
    """The prompt of a row as a problem; None where there is none."""
    turns = row.get("prompt") or row.get("messages") or []
    while turns and turns[-1]["role"] == "assistant":
        turns = turns[:-1]
    if not turns:
        return None
    content = turns[-1]["content"]
    question = content if isinstance(content, str) else "".join(p["text"] for p in content)
    answer, check = row.get("answer"), row.get("check")
    judged = isinstance(answer, str) and check in CHECKS
    whole = "\0".join(str(t["content"]) for t in turns)
    known = (answer, check) if judged else ("", "")
    side = held_out(whole) if heldout is None else heldout
    form = str(row.get("form") or "")
    kind = str(row.get("kind") or "data")
    item = Item(kind, question, str(known[0]), str(known[1]), list(turns), side, form=form)
    item.id = item.id if len(turns) == 1 else f"{item.id}-{len(whole)}"
    return item


def prompt_of(item: Item, tokenizer: Tokenizer, template: str = "") -> list[int]:
    """The ids of everything before the first answer of a worked conversation, or of all where it ends unanswered."""
    if template:
        return [tokenizer.bos_id, *tokenizer.encode(template.replace("{question}", item.question))]
    turns = item.messages
    if turns[-1]["role"] == "assistant":
        turns = turns[: next(i for i, m in enumerate(turns) if m["role"] == "assistant")]
    return render_prompt(turns, tokenizer)
