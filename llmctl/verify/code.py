"""Python functions with tests: HumanEval, MBPP, or small ones made here. The tests run in the sandbox, never here.

This package knows nothing of the sandbox: whoever checks a reply passes it (`check(item, reply, run=run_python)`).
A program that passes says so with a word that was drawn at random after the reply was written, so that printing
"passed" proves nothing, and leaving early proves nothing either.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from random import Random
from typing import Any

from llmctl.errors import UserError
from llmctl.recipe import Settings
from llmctl.verify.item import Item, conversation, draw_side
from llmctl.verify.reading import side

Run = Callable[[str], str]

_SPLIT = "\n# ---- the reply ----\n"  # between what stands before the reply and the tests, in an item's `answer`
_FENCE = re.compile(r"```[a-zA-Z0-9]{0,20}[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_LONGEST = 12_000
_PROGRAM = """\
import io, sys
_out, sys.stdout = sys.stdout, io.StringIO()
_space = {{"__name__": "solution"}}
exec({code!r}, _space)
exec({tests!r}, _space)
sys.stdout = _out
print({word!r})
"""


class CodeOptions(Settings):
    """Where the problems are from."""

    file: str = ""
    """A file of problems, .jsonl or .jsonl.gz, in the form of HumanEval (`prompt`, `test`, `entry_point`,
    `canonical_solution`) or MBPP (`text`, `code`, `test_list`). Empty: small functions, made by code."""
    style: str = "mbpp"
    """The file's form: `mbpp` or `humaneval`."""


def draw(rng: Random, heldout: bool, options: CodeOptions) -> Item:
    """One problem, held out by its question or, where it is made, by function and constant."""
    if not options.file:
        return _made(rng, heldout)
    if options.style == "mbpp":
        return _mbpp(rng.choice(side(options.file, heldout, "text", "code", "test_list")), heldout)
    if options.style == "humaneval":
        required = ("prompt", "test", "entry_point", "canonical_solution")
        return _humaneval(rng.choice(side(options.file, heldout, *required)), heldout)
    raise UserError(f"no style of code problems {options.style!r}", fix="styles: mbpp, humaneval")


def passes(answer: str, reply: str, run: Run) -> bool:
    """Whether the program in `reply` passes the tests of `answer`, both run by `run`, the sandbox."""
    before, found, tests = answer.partition(_SPLIT)
    code = program_in(reply)
    if not found or not code.strip() or len(code) > _LONGEST:
        return False
    return holds(f"{before}\n{code}\n" if before else code, tests, run)


def holds(code: str, tests: str, run: Run) -> bool:
    """Whether the `tests` pass behind `code`, both run by `run`, the sandbox."""
    word = secrets.token_hex(8)
    return run(_PROGRAM.format(code=code, tests=tests, word=word)).strip() == word


def program_in(reply: str) -> str:
    """The last fenced block, or everything. An unclosed block ends with the reply."""
    blocks = _FENCE.findall(reply[-4 * _LONGEST :])
    return blocks[-1] if blocks else reply


def _fenced(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


def _mbpp(row: dict[str, Any], heldout: bool) -> Item:
    tests = [str(t).replace("\r", "") for t in row["test_list"]]
    question = f"{row['text']}\nYour code should pass these tests:\n" + "\n".join(tests)
    # The set-up builds on classes of the reply, so it stands behind it.
    setup = str(row.get("test_setup_code") or "").replace("\r", "")
    answer = _SPLIT + "\n".join([setup, *tests])
    reply = _fenced(str(row["code"]).replace("\r", ""))
    return Item("code", question, answer, "code", conversation(question, reply), heldout, group="mbpp")


def _humaneval(row: dict[str, Any], heldout: bool) -> Item:
    prompt = str(row["prompt"])
    question = f"Complete this function:\n{_fenced(prompt)}"
    # Before a reply that repeats the whole function the prompt is a function without a body, which is legal, too; a
    # reply that is only the body continues it.
    answer = f"{prompt}{_SPLIT}{row['test']}\ncheck({row['entry_point']})"
    reply = _fenced(prompt + str(row["canonical_solution"]))
    return Item("code", question, answer, "code", conversation(question, reply), heldout, group="humaneval")


# (what it does, its expression of n or text and the constant k, its argument)
_FUNCTIONS: tuple[tuple[str, str, str], ...] = (
    ("{k} times n", "n * {k}", "n"),
    ("n plus {k}", "n + {k}", "n"),
    ("the remainder of n divided by {k}", "n % {k}", "n"),
    ("True if n is divisible by {k}, else False", "n % {k} == 0", "n"),
    ("the larger of n and {k}", "max(n, {k})", "n"),
    ("the distance between n and {k}", "abs(n - {k})", "n"),
    ("the sum of the numbers in the list that are greater than {k}", "sum(x for x in values if x > {k})", "values"),
    ("how many numbers in the list are less than {k}", "sum(x < {k} for x in values)", "values"),
    ("the list with {k} added to each number", "[x + {k} for x in values]", "values"),
    ("the numbers of the list that are divisible by {k}", "[x for x in values if x % {k} == 0]", "values"),
    ("the text repeated {k} times", "text * {k}", "text"),
    ("the first {k} letters of the text", "text[:{k}]", "text"),
    ("the last {k} letters of the text, backwards", "text[-{k}:][::-1]", "text"),
    ("True if the text has more than {k} letters, else False", "len(text) > {k}", "text"),
)


def _made(rng: Random, heldout: bool) -> Item:
    (does, expression, argument), k = draw_side(lambda: _function(rng), heldout)
    name = rng.choice(("f", "solve", "compute", "answer"))
    ask = rng.choice(("Write a Python function {0}({1}) that returns {2}.", "In Python, write {0}({1}). Return {2}."))
    question = ask.format(name, argument, does.format(k=k))
    reply = _fenced(f"def {name}({argument}):\n    return {expression.format(k=k)}")
    # Trusted text, from the table above: this is not a reply.
    function: Callable[[Any], Any] = eval(f"lambda {argument}: {expression.format(k=k)}")
    inputs = [_input(rng, argument, k) for _ in range(5)]
    answer = _SPLIT + "\n".join(f"assert {name}({x!r}) == {function(x)!r}" for x in inputs)
    return Item("code", question, answer, "code", conversation(question, reply), heldout, group="made")


def _function(rng: Random) -> tuple[str, tuple[tuple[str, str, str], int]]:
    chosen, k = rng.choice(_FUNCTIONS), rng.randint(2, 20)
    return f"{chosen[0]} {k}", (chosen, k)


def _input(rng: Random, argument: str, k: int) -> Any:
    if argument == "n":
        return rng.choice((k, rng.randint(-50, 50), k * rng.randint(1, 9)))
    if argument == "values":
        return [rng.choice((k, rng.randint(0, 40))) for _ in range(rng.randint(1, 6))]
    return "".join(rng.choice("abcdefghij") for _ in range(rng.randint(1, 25)))
