"""From a task's rows to what a model is asked: prompts, few-shot examples, choices, right answers.

To the letter as lm-evaluation-harness (0.4.13) does it, so that scores can be compared with published ones: where its
delimiters go, how examples are drawn (one generator over all items, seed 1234), what a template that renders to digits
or to a list means.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmctl.errors import UserError
from llmctl.eval.task_data import Row, Splits
from llmctl.eval.task_file import Task, Template
from llmctl.eval.templates import render_template

FEWSHOT_SEED = 1234
Message = dict[str, Any]
Choices = str | list[str] | dict[str, str]


@dataclass(frozen=True)
class Prompt:
    """What stands before a continuation: a text, or the messages of a chat and the beginning of the reply."""

    text: str
    messages: list[Message] | None = None
    prefix: str = ""


@dataclass
class Document:
    """One item, ready to be asked."""

    number: int
    row: Row
    question: str
    """Its own text, without examples: what a person reads."""
    prompts: list[Prompt]
    """One, or one for each choice where the choices stand in the prompts (Winogrande)."""
    target: Any
    """What `doc_to_target` says."""
    gold: Any
    """The number of the right choice, or a list of numbers; None where nothing is chosen."""
    choices: list[str] = field(default_factory=list)
    continuations: list[str] = field(default_factory=list)
    """What is rated behind the prompt, or behind each of the prompts."""

    @property
    def pairs(self) -> list[tuple[Prompt, str]]:
        """(prompt, continuation) of everything that is rated."""
        prompts = self.prompts * len(self.continuations) if len(self.prompts) == 1 else self.prompts
        return list(zip(prompts, self.continuations, strict=True))


@dataclass
class _Turn:
    """A message, and what follows it where the conversation is one plain text."""

    role: str
    content: str
    delimiter: str = ""


def documents(task: Task, splits: Splits, num_fewshot: int | None, limit: int, chat: bool) -> list[Document]:
    """The first `limit` items (0: all). `num_fewshot` None is the task's own. With `chat` prompts are conversations.

    UserError where the examples do not suffice or a template fails on a row.
    """
    maker = _Maker(task, splits, num_fewshot, chat)
    rows = splits.rows(splits.asked)
    return [maker.document(n, row) for n, row in enumerate(rows[:limit] if limit else rows)]


class _Maker:
    def __init__(self, task: Task, splits: Splits, num_fewshot: int | None, chat: bool) -> None:
        self.task, self.settings, self.chat = task, task.settings, chat
        self.columns = set(splits.rows(splits.asked)[0])
        own = self.settings.num_fewshot
        # As in the harness, a task that is defined without examples stays without.
        self.shots = own or 0 if num_fewshot is None or own == 0 else num_fewshot
        self.examples = _Examples(task, splits, self.shots)

    def document(self, number: int, row: Row) -> Document:
        try:
            return self._document(number, row)
        except ValueError as e:
            at = f"{self.task.path}, item {number + 1}"
            raise UserError(f"a template fails on it: {e}", at, "the columns there are: " + ", ".join(row)) from e

    def _document(self, number: int, row: Row) -> Document:
        settings = self.settings
        if settings.output_type == "loglikelihood_rolling":
            whole = str(self._target(row, settings.doc_to_target))
            return Document(number, row, whole, [], whole, None, continuations=[whole])
        text = self._text(row, settings.doc_to_text)
        target = self._target(row, settings.doc_to_target)
        choices = self._choices(row, settings.doc_to_choice) if settings.doc_to_choice is not None else []
        in_prompts = isinstance(text, int) and bool(choices)
        turns = self._before(row)
        prefix = self._prefix(row)
        asked = choices if in_prompts else [str(text)]
        prompts = [self._prompt([*turns, *self._asking(q, prefix, in_prompts)], prefix) for q in asked]
        made = Document(number, row, "\n".join(asked), prompts, target, text if in_prompts else target, choices)
        delimiter = self._delimiter()
        if settings.output_type == "multiple_choice":
            made.continuations = [delimiter + str(c) for c in ([target] * len(choices) if in_prompts else choices)]
        elif settings.output_type == "loglikelihood":
            made.continuations = [str(target)]
        return made

    def _delimiter(self) -> str:
        """Between the prompt and a choice: none behind the header of a chat's turn."""
        prefix = self.settings.gen_prefix
        if self.chat and not (prefix and not prefix[-1].isspace()):
            return ""
        return self.settings.target_delimiter

    def _before(self, row: Row) -> list[_Turn]:
        """The description and the examples."""
        settings, few = self.settings, self.settings.fewshot_config
        description = self._field(row, settings.description)
        turns = [_Turn("system", description)] if description else []
        between = settings.fewshot_delimiter if few.fewshot_delimiter is None else few.fewshot_delimiter
        behind = settings.target_delimiter if few.target_delimiter is None else few.target_delimiter
        for example in self.examples.draw(row):
            asked = self._text(example, settings.doc_to_text if few.doc_to_text is None else few.doc_to_text)
            answer = self._target(example, settings.doc_to_target if few.doc_to_target is None else few.doc_to_target)
            by = settings.doc_to_choice if few.doc_to_choice is None else few.doc_to_choice
            choices = self._choices(example, by) if by is not None else []
            if isinstance(asked, int) and choices:
                asked, choices = choices[asked], []
            said = _said(answer, choices)
            prefix = self._prefix(example)
            gap = (behind if not prefix or _needs_gap(str(asked), prefix) else "") if said else ""
            turns.append(_Turn("user", str(asked), gap))
            if said:
                turns.append(_Turn("assistant", _joined(prefix, said, " "), between))
        return turns

    def _asking(self, question: str, prefix: str, in_prompts: bool) -> list[_Turn]:
        gap = "" if in_prompts else self.settings.target_delimiter
        asked = [_Turn("user", question, gap if prefix and _needs_gap(question, prefix) else "")]
        return asked + ([_Turn("assistant", prefix)] if prefix else [])

    def _prompt(self, turns: Sequence[_Turn], prefix: str) -> Prompt:
        text = "".join(turn.content + turn.delimiter for turn in turns)
        if not self.chat:
            return Prompt(text)
        said = turns[:-1] if prefix else turns
        return Prompt(text, [{"role": turn.role, "content": turn.content} for turn in said], prefix)

    def _field(self, row: Row, template: str) -> str:
        if not template:
            return ""
        return str(row[template]) if template in row else render_template(template, row)

    def _prefix(self, row: Row) -> str:
        return self._field(row, self.settings.gen_prefix or "")

    def _text(self, row: Row, template: Template | None) -> str | int:
        """A number where the choices stand in the prompts: then it is the right one."""
        assert template is not None and not isinstance(template, list)
        if isinstance(template, int):
            return template
        if template in self.columns:
            value = row[template]
            return value if isinstance(value, int) and not isinstance(value, bool) else str(value)
        text = render_template(template, row)
        return int(text) if text.isdigit() and self.settings.doc_to_choice is not None else text

    def _target(self, row: Row, template: Template | None) -> Any:
        if template is None or isinstance(template, (int, list)):
            return template
        if template in self.columns:
            return row[template]
        text = render_template(template, row)
        if text.isdigit() and self.settings.doc_to_choice is not None:
            return int(text)
        return _literal(text, text) if len(text) >= 2 and text[0] == "[" and text[-1] == "]" else text

    def _choices(self, row: Row, template: Choices) -> list[str]:
        if isinstance(template, dict):
            return list(template.values())
        found: Any = template
        if isinstance(template, str):
            found = row[template] if template in self.columns else _literal(render_template(template, row), None)
        if not isinstance(found, list) or not found:
            raise ValueError("doc_to_choice gives no list of choices")
        return [str(c) for c in found]


class _Examples:
    """The examples before each item, in the order in which the harness draws them."""

    def __init__(self, task: Task, splits: Splits, shots: int) -> None:
        settings, few = task.settings, task.settings.fewshot_config
        self.task, self.shots, self.first = task, shots, few.sampler == "first_n"
        self.random = random.Random(FEWSHOT_SEED)
        split = few.split or settings.fewshot_split
        # The harness keeps an item out of its own examples only where both come from the split of this name.
        self.keep_out = split == settings.test_split
        self.pool: list[Row] = []
        if not shots:
            return
        if split is None and few.samples is not None:
            self.pool = list(few.samples)
        else:
            split = split or settings.training_split or settings.validation_split or splits.asked
            self.pool = splits.rows(split)
        needed = shots + (self.keep_out and not self.first)
        if len(self.pool) < needed:
            raise UserError(
                f"{shots} examples are wanted, but {split or 'fewshot_config.samples'} has {len(self.pool)} rows",
                str(task.path),
                "lower num_fewshot",
            )

    def draw(self, row: Row) -> Sequence[Row]:
        """The examples for `row`. To be called once for every item, in order."""
        if not self.shots:
            return []
        if self.first:
            pool = [r for r in self.pool if r != row] if self.keep_out else self.pool
            return pool[: self.shots]
        if not self.keep_out:
            return self.random.sample(self.pool, self.shots)
        drawn = [r for r in self.random.sample(self.pool, self.shots + 1) if r != row][: self.shots]
        if len(drawn) < self.shots:  # the row stands in the split several times
            drawn = self.random.sample([r for r in self.pool if r != row], self.shots)
        return drawn


def _said(answer: Any, choices: Sequence[str]) -> str:
    """An example's answer as text."""
    if choices and isinstance(answer, int):
        return choices[answer]
    found = answer[0] if isinstance(answer, list) and answer else answer
    return "" if found is None else str(found)


def _needs_gap(before: str, after: str) -> bool:
    return bool(before) and not (before[-1].isspace() or after[0].isspace())


def _joined(before: str, after: str, gap: str) -> str:
    return before + (gap if before and after and _needs_gap(before, after) else "") + after


def _literal(text: str, otherwise: Any) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return otherwise


def contents(documents: Sequence[Document]) -> Iterator[list[Any]]:
    """What was asked, of each item: for a hash that is equal where the same was asked."""
    for d in documents:
        yield [[[p.text, p.messages, p.prefix] for p in d.prompts], d.continuations, d.target]
