"""The held-out items: from conversations with known answers, or made by code. The same ones for every model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from llmctl.errors import UserError, nearest
from llmctl.eval.config import EvalConfig
from llmctl.eval.core import CORE
from llmctl.eval.task_file import is_task, shipped
from llmctl.formats.conversations import read_conversations
from llmctl.formats.json_rows import Skipped, read_rows
from llmctl.tools.search import read_library
from llmctl.verify import CHECKS, KINDS, problems
from llmctl.verify.lookup import library
from llmctl.workspace import Artifact, Foreign
from llmctl.workspace.files import sha256_json

# Measured without questions, so no kinds of items.
LOSS, PAIRS = "bits_per_byte", "pairs"
# What is asked where nobody says what, and no conversations say it either.
_MADE = ("sums", "identity", "names", "lookup", "python")
# The sums again, with the beginning of the answer put into the model's mouth: no tokens to think in.
AT_ONCE, _AT_ONCE_PREFIX = "sums_in_one_token", "The answer is"
# Where small models are known to be weak, by the names people use.
SPOTS = {
    "weak_spots": (
        *("letters", "spelling", "decimals", "sums", AT_ONCE, "names", "identity"),
        *("lookup", "python"),
    ),
    "unknown_names": ("names",),
    "tools": ("lookup", "python"),
    AT_ONCE: (AT_ONCE,),
}


@dataclass(frozen=True)
class Question:
    """One item: the messages that a model answers, and what its answer is judged against."""

    id: str
    task: str
    group: str
    messages: list[dict[str, Any]]
    answer: str
    check: str
    form: str = ""
    prefix: str = ""
    """The beginning of the reply, which is put into the model's mouth."""

    @property
    def text(self) -> str:
        """The last thing said, as a person reads it."""
        content = self.messages[-1]["content"]
        return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content)


@dataclass
class Questions:
    """What is asked, the documents that a search may find, and where both come from."""

    items: list[Question] = field(default_factory=list)
    documents: list[tuple[str, str]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """Equal for equal items and documents, in the same order."""
        return sha256_json([[asdict(q) for q in self.items], self.documents])

    def per_task(self) -> dict[str, int]:
        """How many items each task has."""
        found: dict[str, int] = {}
        for q in self.items:
            found[q.task] = found.get(q.task, 0) + 1
        return found


def questions(config: EvalConfig, given: Sequence[Artifact | Foreign], inherited: Sequence[Artifact]) -> Questions:
    """The items of every wanted task: from `given` conversations, else from `inherited` ones, else made by code.

    UserError for a task that is neither a kind in the conversations nor one that code makes.
    """
    found = Questions()
    pool: dict[str, dict[str, Question]] = {}
    for source in given or inherited:
        rows = [_question(row, where) for where, row in _held_out(source)]
        if given and not rows:
            raise UserError("no row has a 'check' to judge an answer by", _name(source), "give conversations that have")
        if rows:
            found.sources.append(_name(source))
            found.documents += _documents(source)
        for q in rows:
            pool.setdefault(q.task, {})[q.id] = q
    wanted = kinds(config) if config.tasks else list(pool or _MADE)
    unknown = [t for t in wanted if t not in pool and t not in KINDS and t not in SPOTS]
    if unknown:
        names = [LOSS, PAIRS, CORE, *dict.fromkeys([*pool, *KINDS, *SPOTS, *shipped()])]
        raise UserError(f"no task {unknown[0]!r}{nearest(unknown[0], names)}", fix="tasks: " + ", ".join(names))
    for task in wanted:
        kind = "sums" if task == AT_ONCE else task
        made = Questions()
        if kind in pool:
            made.items = sampled(pool[kind].values(), config.items, config.seed)
        else:
            _make(kind, config, made)
        if task == AT_ONCE:
            made.items = [replace(q, task=task, prefix=_AT_ONCE_PREFIX) for q in made.items]
        found.items += made.items
        found.documents += made.documents
        found.sources += [s for s in made.sources if s not in found.sources]
    return found


def kinds(config: EvalConfig) -> list[str]:
    """The kinds of items among the wanted tasks, each once."""
    named = [t for t in config.tasks if t not in (LOSS, PAIRS, CORE) and not is_task(t)]
    return list(dict.fromkeys(kind for t in named for kind in SPOTS.get(t, (t,))))


def sampled(items: Iterable[Question], n: int, seed: int) -> list[Question]:
    """`n` of the items, chosen by a hash of their ids, so that their order and number in the file do not matter."""
    return sorted(items, key=lambda q: hashlib.sha256(f"{seed}/{q.id}".encode()).digest())[:n]


def _make(task: str, config: EvalConfig, found: Questions) -> None:
    made = problems(task, config.items, config.seed, heldout=True)
    found.items += [_question(item.row(), f"{task} made by code") for item in made]
    if any(item.document for item in made):
        found.documents += [(page["title"], page["text"]) for page in library(made, config.seed)]
    found.sources.append(f"{task}, made by code from seed {config.seed}")


def _question(row: Mapping[str, Any], where: str) -> Question:
    messages, answer, check = row.get("messages"), row.get("answer"), row.get("check")
    if not isinstance(messages, list) or not messages or answer is None or check not in CHECKS:
        raise UserError(
            f"an item needs 'messages', an 'answer' and a 'check' that is known; check is {check!r}",
            where,
            "checks: " + ", ".join(CHECKS),
        )
    asked = messages[:-1] if messages[-1].get("role") == "assistant" else messages
    if not asked:
        raise UserError("the item has an answer but no question", where)
    ident = str(row.get("id") or sha256_json([asked, answer])[:16])
    task = str(row.get("kind") or "answers")
    group = str(row.get("group") or "")
    form = str(row.get("form") or "")
    return Question(ident, task, group, _storable(asked), _storable(str(answer)), str(check), form)


def _storable(value: Any) -> Any:
    """Without lone surrogates, which JSON can spell but neither a tokenizer nor a file can hold."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _held_out(source: Artifact | Foreign) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of the rows that can be judged: an artifact's held-out part, or a whole file."""
    if isinstance(source, Foreign):
        rows = enumerate(read_conversations(source.path).rows, 1)
        yield from ((f"{source.path}, conversation {n}", row) for n, row in rows if row.get("check"))
    elif "heldout.jsonl" in set(source.files()):
        yield from ((where, row) for where, row in whole_rows(source.file("heldout.jsonl")) if row.get("check"))


def _documents(source: Artifact | Foreign) -> list[tuple[str, str]]:
    return list(read_library(source)) if (source.path / "library.jsonl").is_file() else []


def whole_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of each line of a file of ours. UserError names a line that is damaged."""
    for row in read_rows(path):
        if isinstance(row, Skipped):
            raise UserError(row.why, f"{path}:{row.line}", "the file is damaged: make it again")
        yield f"{path}:{row.line}", row.value


def _name(source: Artifact | Foreign) -> str:
    return source.name or str(source.path)
