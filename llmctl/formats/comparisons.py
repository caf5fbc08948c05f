"""Comparisons, in whatever form they come, as `{"prompt": messages, "responses": [...], "ranking": [...]}`.

`ranking[i]` is the rank of `responses[i]`: 0 is best, equal numbers are ties; `margin`, where a row has one, is how
much better the better reply is. A pair of a chosen and a rejected reply is the case of two. Single judged replies (a
score, a rank or a thumb each) are gathered by prompt, and compared where a prompt has two or more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.formats import oasst
from llmctl.formats.conversations import judged_action, prompt_turns
from llmctl.formats.json_rows import Row, Skipped, read_rows
from llmctl.formats.transcripts import split_transcript
from llmctl.formats.turns import Message, Unusable, message, tidy

_KEPT = ("id", "kind", "source")
EMPTY, EQUAL = "empty", "equal to another"  # what a reply was left out for


@dataclass
class Comparisons:
    """`rows` as {"prompt", "responses", "ranking"}; `format` names the forms found, `skipped` the rows left out and
    `replies` how many replies were left out of rows that are kept, by reason.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    format: str = ""
    skipped: list[Skipped] = field(default_factory=list)
    replies: Counter[str] = field(default_factory=Counter)

    @property
    def pairs(self) -> int:
        """How many ordered pairs the rankings hold, ties not counted."""
        return sum(sum(a < b for a in row["ranking"] for b in row["ranking"]) for row in self.rows)


@dataclass(frozen=True)
class _Ranked:
    """Replies to one prompt with scores: a higher score is better, equal ones are ties."""

    prompt: list[Message]
    replies: list[Any]
    scores: list[float]


def read_comparisons(path: str | Path, split: str = "train") -> Comparisons:
    """Read a file, or a folder such as a comparisons artifact (its `<split>.jsonl`).

    UserError where nothing in it compares two replies to one prompt.
    """
    found, forms, single = Comparisons(), Counter[str](), _Single()
    for row in read_rows(Path(path), split):
        if isinstance(row, Skipped):
            found.skipped.append(row)
            continue
        try:
            form, many = _ranked(row.value)
            if form in _SINGLE_FORMS:
                single.add(row, many[0])
            else:
                found.rows += [_finished(one, row.value, found.replies) for one in many]
            forms[form] += 1
        except Unusable as e:
            found.skipped.append(Skipped(row.file, row.line, str(e)))
    rows, alone = single.gathered(found.replies)
    found.rows += rows
    found.skipped += alone
    if not found.rows:
        why = f"{len(found.skipped):,} rows skipped, the first: {found.skipped[0]}" if found.skipped else "it is empty"
        raise UserError(f"no comparison in it ({why})", str(path), "docs/data-formats.md shows the forms that are read")
    found.format = " + ".join(form for form, _ in forms.most_common())
    return found


class _Single:
    """Single judged replies, gathered by prompt."""

    def __init__(self) -> None:
        self._by_prompt: dict[str, list[tuple[Row, _Ranked]]] = {}

    def add(self, row: Row, judged: _Ranked) -> None:
        prompt = tidy(judged.prompt, answered=False)
        message("assistant", judged.replies[0])
        self._by_prompt.setdefault(json.dumps(prompt, sort_keys=True), []).append((row, judged))

    def gathered(self, left_out: Counter[str]) -> tuple[list[dict[str, Any]], list[Skipped]]:
        rows, alone = [], []
        for found in self._by_prompt.values():
            replies = [judged.replies[0] for _, judged in found]
            scores = [judged.scores[0] for _, judged in found]
            try:
                rows.append(_finished(_Ranked(found[0][1].prompt, replies, scores), {}, left_out))
            except Unusable:
                why = "the only judged reply to its prompt, so there is nothing to compare it with"
                alone += [Skipped(row.file, row.line, why) for row, _ in found]
        return rows, alone


def _ranked(row: dict[str, Any]) -> tuple[str, list[_Ranked]]:
    """(the name of the form, the rankings in the row)."""
    if oasst.is_tree(row):
        return "oasst tree", [_Ranked(p, r, [-float(x) for x in ranks]) for p, r, ranks in oasst.rankings(row)]
    for name, keys, read in _FORMS:
        if all(key in row for key in keys):
            return name, [read(row)]
    raise Unusable(f"no known form of comparison; its keys are {', '.join(list(row)[:8]) or 'none'}")


def _finished(ranked: _Ranked, row: dict[str, Any], left_out: Counter[str]) -> dict[str, Any]:
    """The row to hand on. Empty replies and repetitions are left out, and counted; Unusable where fewer than two
    remain. Of equal replies the best rank counts.
    """
    prompt = tidy(ranked.prompt, answered=False)
    if prompt[-1]["role"] == "assistant":
        raise Unusable("its prompt ends with an assistant turn")
    kept: dict[str, float] = {}
    out: Counter[str] = Counter()
    for reply, score in zip(ranked.replies, ranked.scores, strict=True):
        text = message("assistant", reply)["content"]
        if not isinstance(text, str):
            raise Unusable("a reply with tool calls cannot be compared yet")
        if not text.strip():
            out[EMPTY] += 1
            continue
        out[EQUAL] += text in kept
        kept[text] = max(score, kept.get(text, score))
    if len(kept) < 2:
        why = " and ".join({EMPTY: "empty", EQUAL: "equal"}[w] for w in (EMPTY, EQUAL) if out[w])
        raise Unusable(f"its replies are {why}" if why else "it has a single reply")
    left_out += out
    ranks = {score: rank for rank, score in enumerate(sorted(set(kept.values()), reverse=True))}
    found = {"prompt": prompt, "responses": list(kept), "ranking": [ranks[score] for score in kept.values()]}
    return {**found, **_more(row)}


def _more(row: dict[str, Any]) -> dict[str, Any]:
    """What is handed on besides: what tells rows apart, and how much better the better reply is."""
    found = {key: row[key] for key in _KEPT if isinstance(row.get(key), str)}
    margin = row.get("margin")
    said = isinstance(margin, (int, float)) and not isinstance(margin, bool) and 0 <= margin < float("inf")
    return {**found, "margin": float(margin)} if said and margin is not None else found


def _ranking(row: dict[str, Any]) -> _Ranked:
    replies, ranking = row["responses"], row["ranking"]
    if not isinstance(replies, list) or not isinstance(ranking, list) or len(replies) != len(ranking):
        raise Unusable("`responses` and `ranking` should be lists of equal length")
    return _Ranked(prompt_turns(row["prompt"]), replies, [-s for s in _numbers(ranking)])


def _scored(row: dict[str, Any]) -> _Ranked:
    replies = row["responses"]
    if not isinstance(replies, list) or not all(isinstance(r, dict) for r in replies):
        raise Unusable("`responses` should be a list of objects with `output` and `score`")
    return _Ranked(_asked(row), [r.get("output") for r in replies], _numbers(r.get("score") for r in replies))


def _pair(row: dict[str, Any]) -> _Ranked:
    """Chosen and rejected behind a prompt; or two whole conversations that differ in their last turn."""
    if "conversations" in row:
        turns = prompt_turns(row["conversations"])
        return _Ranked(turns, [_last([row[key]])["content"] for key in ("chosen", "rejected")], [1.0, 0.0])
    chosen, rejected = (row[key] for key in ("chosen", "rejected"))
    if "instruction" in row or ("prompt" in row and isinstance(chosen, str)):
        return _Ranked(_asked(row), [chosen, rejected], [1.0, 0.0])
    one, other = (split_transcript(c) if isinstance(c, str) else prompt_turns(c) for c in (chosen, rejected))
    if "prompt" in row and len(one) == len(other) == 1:
        return _Ranked(_asked(row), [one[0]["content"], other[0]["content"]], [1.0, 0.0])
    if not one or one[:-1] != other[:-1]:
        raise Unusable("chosen and rejected differ before their last turn, or are no conversations")
    if (one[-1]["role"], other[-1]["role"]) != ("assistant", "assistant"):
        raise Unusable("chosen or rejected does not end with an assistant turn")
    return _Ranked(one[:-1], [one[-1]["content"], other[-1]["content"]], [1.0, 0.0])


def _voted(row: dict[str, Any]) -> _Ranked:
    """PandaLM: annotators say 1, 2, or 0 for a tie; what more than half of them say counts."""
    votes = [value for key, value in row.items() if key.startswith("annotator")]
    winner, most = Counter(v for v in votes if v in (0, 1, 2)).most_common(1)[0] if votes else (None, 0)
    if 2 * most <= len(votes):
        raise Unusable("its annotators do not agree")
    return _Ranked(_asked(row), [row["response1"], row["response2"]], [float(winner == 1), float(winner == 2)])


def _thumb(row: dict[str, Any]) -> _Ranked:
    """KTO: a conversation whose last turn was judged good or bad."""
    turns = prompt_turns(row["messages"])
    if not turns or turns[-1]["role"] != "assistant":
        raise Unusable("it does not end with an assistant turn")
    return _Ranked(turns[:-1], [turns[-1]["content"]], _numbers([row["label"]]))


def _ranked_reply(row: dict[str, Any]) -> _Ranked:
    return _Ranked(prompt_turns(row["input"]), [row["output"]], [-s for s in _numbers([row["rank"]])])


def _rewarded(row: dict[str, Any]) -> _Ranked:
    *turns, last = judged_action(row)
    return _Ranked(turns, [last["content"]], _numbers([row["reward"]]))


def _asked(row: dict[str, Any]) -> list[Message]:
    if "instruction" not in row:
        return prompt_turns(row["prompt"])
    about = row.get("input") or ""
    if not isinstance(row["instruction"], str) or not isinstance(about, str):
        raise Unusable("its instruction is no text")
    return [message("user", row["instruction"] + (f"\n{about}" if about.strip() else ""))]


def _last(turns: Any) -> Message:
    return prompt_turns(turns)[-1]


def _numbers(values: Iterable[Any]) -> list[float]:
    found = list(values)
    if not all(isinstance(v, (int, float)) and v == v and abs(v) != float("inf") for v in found):
        raise Unusable("a rank or a score is no number")
    return [float(v) for v in found]


# (name, the keys it is recognised by, how it is read): the first that fits.
_FORMS: list[tuple[str, tuple[str, ...], Callable[[dict[str, Any]], _Ranked]]] = [
    ("ranking", ("prompt", "responses", "ranking"), _ranking),
    ("scored replies", ("responses", "instruction"), _scored),
    ("scored replies", ("responses", "prompt"), _scored),
    ("pair", ("chosen", "rejected"), _pair),
    ("pandalm", ("instruction", "response1", "response2"), _voted),
    ("kto", ("messages", "label"), _thumb),
    ("ranked reply", ("input", "output", "rank"), _ranked_reply),
    ("judged action", ("context", "generation", "reward"), _rewarded),
]
_SINGLE_FORMS = ("kto", "ranked reply", "judged action")
