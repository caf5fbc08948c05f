"""Whether a reply agrees with the source: by a rule, by a model that is asked, or by the person at the terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from llmctl.endpoint import ChatSampling
from llmctl.errors import Interrupted, UserError
from llmctl.synth.asking import Asking, Journal, seed_of
from llmctl.synth.questions import Question
from llmctl.verify import check

PROMPT = """\
Question: {question}
Right answer: {answer}
Given answer: {reply}

Does the given answer say the same as the right answer? An answer that says it does not know, or that says several \
different things, does not. Reply with one word: yes or no."""

_VERDICT = re.compile(r"\b(yes|no)\b", re.I)
_LONGEST = 1000  # characters of a reply that a judge reads

Pair = tuple[Question, str]
Judge = Callable[[Sequence[Pair]], list[bool]]
"""For each (question, reply): whether they agree."""


def by_rule(pairs: Sequence[Pair]) -> list[bool]:
    """The reply is short, holds the words of the answer, and does not refuse."""
    return [check({"answer": q.answer, "check": "contains"}, reply).correct for q, reply in pairs]


def by_model(asking: Asking, seed: int) -> Judge:
    """A model says yes or no to each pair; a reply without either word counts as no."""

    def judge(pairs: Sequence[Pair]) -> list[bool]:
        different = list(dict.fromkeys(pairs))
        asked = [_asked(q, reply) for q, reply in different]
        seeds = [seed_of("judge", seed, q.question, reply) for q, reply in different]
        # Room for a model that thinks before it speaks; one that does not stops by itself.
        replies = asking.ask("judge", asked, ChatSampling(max_tokens=512, temperature=0.0), seeds)
        verdicts = {pair: _yes(reply.text) for pair, reply in zip(different, replies, strict=True)}
        return [verdicts[pair] for pair in pairs]

    return judge


def by_person(folder: Path, read: Callable[[str], str] | None = None) -> Judge:
    """A person says yes or no to each different pair, kept as they go. `read` takes the place of the terminal."""

    def judge(pairs: Sequence[Pair]) -> list[bool]:
        if read is None and not sys.stdin.isatty():
            raise UserError("there is no terminal to ask in", "knowledge.judge", "use contains or model")
        journal = Journal(folder / "person.jsonl")
        different = list(dict.fromkeys(pairs))
        for i, (q, reply) in enumerate(different, 1):
            key = f"{q.question}\n{reply}"
            if key not in journal.found:
                shown = f"\n{i}/{len(different)}  {q.question}\n  source: {q.sentence}\n  model:  {visible(reply)}\n"
                journal.add(key, {"agrees": _answer(read or input, shown + "agrees? [y/n/q] ")})
        return [bool(journal.found[f"{q.question}\n{reply}"]["agrees"]) for q, reply in pairs]

    return judge


def visible(text: str) -> str:
    """One line without control characters: what a model wrote must not move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text)[:_LONGEST]


def _answer(read: Callable[[str], str], prompt: str) -> bool:
    while True:
        try:
            said = read(prompt).strip().lower()[:1]
        except EOFError:
            said = "q"
        if said == "q":
            raise Interrupted("run the same command again to judge the rest")
        if said in ("y", "n"):
            return said == "y"


def _asked(question: Question, reply: str) -> list[dict[str, str]]:
    text = PROMPT.format(question=question.question, answer=question.sentence, reply=reply[:_LONGEST])
    return [{"role": "user", "content": text}]


def _yes(text: str) -> bool:
    """The last verdict counts: a model that reasons aloud comes to it in the end."""
    said = _VERDICT.findall(text)
    return bool(said) and said[-1].lower() == "yes"
