"""GSM8K (arXiv 2110.14168): grade-school word problems from a file, and the two ways its answers are extracted.

`strict` and `flexible` are the filters of lm-evaluation-harness's `gsm8k` task and `normal` its normalisation, so that
scores can be compared with published ones. As a problem of this package a reply is judged by the check "number", which
reads every form of an answer.
"""

from __future__ import annotations

import re
from collections import deque
from random import Random

from llmctl.recipe import Settings
from llmctl.verify.forms import Form
from llmctl.verify.item import Item, conversation, draw_side
from llmctl.verify.reading import side

INVALID = "[invalid]"
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
# (the story, its steps, the last of which ends in the answer) of three small numbers
_STORIES = (
    (
        "{0} has {a} {1} and buys {b} boxes of {c} {1} each. How many {1} does {0} have now?",
        "The boxes hold {b}*{c}={bc} {1}.\n{0} has {a}+{bc}={sum} {1}.",
    ),
    (
        "{0} packs {b} bags with {c} {1} each and has {a} {1} left over. How many {1} were there at first?",
        "The bags hold {b}*{c}={bc} {1}.\nThere were {bc}+{a}={sum} {1}.",
    ),
    (
        "Each of {b} friends gives {0} {c} {1}. {0} had {a} {1} before. How many {1} does {0} have?",
        "The friends give {b}*{c}={bc} {1}.\n{0} has {a}+{bc}={sum} {1}.",
    ),
    (
        "{0} reads {c} pages a day for {b} days, then {a} pages more. How many pages does {0} read?",
        "In {b} days {0} reads {b}*{c}={bc} pages.\nThat makes {bc}+{a}={sum} pages.",
    ),
)
_NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry")
_GOODS = ("apples", "pencils", "marbles", "cards", "eggs", "stamps", "shells", "buttons")
_CALCULATION = re.compile(r"<<[^<>\n]{0,200}>>")


class Gsm8kOptions(Settings):
    """Where the problems are."""

    file: str = ""
    """The file of problems, .jsonl or .jsonl.gz, with `question` and `answer` a line, as published. Empty: short word
    problems in the same form, made by code."""
    calculations: bool = False
    """Keep the <<48/2=24>> annotations in worked solutions."""
    form: Form = "hashes"
    """How the answer is written: `hashes` (#### 72, as in the data set), `answer`, `boxed` or `think`."""


def draw(rng: Random, heldout: bool, options: Gsm8kOptions) -> Item:
    """One problem of the file; a tenth of them is held out by a hash of the question."""
    if not options.file:
        return _made(rng, heldout)
    row = rng.choice(side(options.file, heldout, "question", "answer"))
    question, (steps, _, answer) = str(row["question"]).strip(), str(row["answer"]).rpartition("####")
    answer = answer.strip().replace(",", "")
    steps = (steps if options.calculations else _CALCULATION.sub("", steps)).strip()
    messages = conversation(question, f"{steps}\nThe answer is {answer}.")
    return Item("gsm8k", question, answer, "number", messages, heldout)


def _made(rng: Random, heldout: bool) -> Item:
    """Held out by the numbers: another name in the same story is no new problem."""

    def numbers() -> tuple[str, tuple[int, int, int]]:
        found = rng.randint(2, 60), rng.randint(2, 9), rng.randint(2, 12)
        return f"story {found}", found

    a, b, c = draw_side(numbers, heldout)
    words = {"a": a, "b": b, "c": c, "bc": b * c, "sum": a + b * c}
    name, goods = rng.choice(_NAMES), rng.choice(_GOODS)
    question, steps = (text.format(name, goods, **words) for text in rng.choice(_STORIES))
    messages = conversation(question, f"{steps}\nThe answer is {words['sum']}.")
    return Item("gsm8k", question, str(words["sum"]), "number", messages, heldout)


def strict(reply: str) -> str:
    """What follows the first `#### `, or `[invalid]`: the harness's `strict-match`."""
    found = _STRICT.search(reply)
    return found[1].strip() if found else INVALID


def flexible(reply: str) -> str:
    """The last thing that looks like a number, or `[invalid]`: the harness's `flexible-extract`."""
    found = deque(_FLEXIBLE.finditer(reply), maxlen=1)
    return (found[0][1] or found[0][2]).strip() if found else INVALID


def normal(text: str) -> str:
    """As the harness compares: without commas, dollar signs, everything up to `#### `, and a final stop."""
    text = text.replace(",", "").replace("$", "")
    text = text.rpartition("#### ")[2] if "#### " in text else text
    return re.sub(r"\.$", "", text).lower()


def matches(extracted: str, answer: str) -> bool:
    """Exact match of an extracted answer with a row's `answer` (the whole worked one, or its number)."""
    return normal(extracted) == normal(answer)
