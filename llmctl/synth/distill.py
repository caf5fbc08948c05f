"""Solutions that a teacher writes and a check finds right: distillation, or rejection sampling where the teacher is
one's own model.

Nothing is taken on trust: what is kept has the right answer by the problem's own check, came to an end, and is plain
text. What was dropped stands, with the reason, in `rejected.jsonl`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmctl.console import Console
from llmctl.endpoint import ChatSampling, Reply, open_writer
from llmctl.errors import UserError
from llmctl.formats.conversations import read_conversations
from llmctl.synth.asking import Asking, seed_of
from llmctl.synth.config import SynthConfig
from llmctl.synth.made import THOUGHT, Call, Made, aloud, unusable
from llmctl.synth.near import Near
from llmctl.verify import CHECKS, check, problems
from llmctl.verify.forms import written
from llmctl.workspace import Workspace

INSTRUCTION = "Solve the problem step by step. End with one line: The answer is X."

_ANSWER_TAGS = re.compile(r"</?(?:think|answer)>")
_LAST = re.compile(r"\s*(?:[Tt]he answer is:?[^\n]*|####[^\n]*|\\boxed\{[^\n]*\}[^\n]*)\s*$")

Row = dict[str, Any]


def make(config: SynthConfig, workspace: Workspace, folder: Path, console: Console) -> Made:
    """Train rows by the teacher; held-out rows as the problems come, with their own solutions."""
    made = Made()
    rows = problem_rows(config, workspace, heldout=False)
    made.heldout = problem_rows(config, workspace, heldout=True)
    writer = open_writer(workspace, config.teacher, config.endpoint, "a teacher")
    asking = Asking("teacher", writer, folder, config.endpoint, console)
    options, instruction = config.distill, _instruction(config)
    asked = [_asked(row, instruction) for row in rows for _ in range(options.samples)]
    seeds = [seed_of("distill", config.seed, str(row["messages"]), i) for row in rows for i in range(options.samples)]
    sampling = ChatSampling(max_tokens=options.max_new_tokens, temperature=options.temperature)
    replies = asking.ask("distill", asked, sampling, seeds)
    solved = right = 0
    for i, row in enumerate(rows):
        found = right_solutions(config, row, replies[i * options.samples : (i + 1) * options.samples], made)
        right, solved = right + len(found), solved + bool(found)
        made.train += [_taught(row, text) for text in _kept(config, found, row, made)]
    made.figures = {"problems": len(rows), "solved": solved, "right": right / max(1, len(asked))}
    made.figures |= {"teacher": asking.report(), "prompts": {"instruction": instruction}}
    if not made.train:
        why = f"none of {len(asked):,} solutions is right ({made.summary()})"
        raise UserError(why, fix="try easier problems, or another teacher")
    return made


def calls(config: SynthConfig, workspace: Workspace) -> list[Call]:
    """What would be asked, for the estimate."""
    few = problem_rows(config, workspace, heldout=False)[:50]
    chars = sum(len(str(m["content"])) for row in few for m in _asked(row, _instruction(config))) / max(1, len(few))
    n = config.mix["distill"] * config.distill.samples
    return [Call("solutions", n, chars, config.distill.max_new_tokens)]


def problem_rows(config: SynthConfig, workspace: Workspace, heldout: bool) -> list[Row]:
    """The problems of one side as rows of a conversations artifact, each with `answer` and `check`."""
    count = config.heldout if heldout else config.mix["distill"]
    if not config.problems:
        task = config.distill.task
        return [i.row() for i in problems(task, count, config.seed, heldout, **getattr(config, task).model_dump())]
    source = workspace.resolve(config.problems, ["conversations"], files=True)
    if heldout and not (source.path / "heldout.jsonl").is_file():
        return []
    if heldout and not (source.path / "heldout.jsonl").stat().st_size:
        return []
    rows = read_conversations(source.path, split="heldout" if heldout else "train").rows
    usable = [row for row in rows if row.get("check") in CHECKS and row.get("answer") is not None]
    if not usable and not heldout:
        raise UserError("none of its rows has an answer and a check", config.problems, f"checks: {', '.join(CHECKS)}")
    return usable[:count]


def right_solutions(config: SynthConfig, row: Row, replies: Sequence[Reply], made: Made) -> list[str]:
    """The texts of the replies that may be taught, as they will be taught, in the order in which they were sampled."""
    found = []
    for reply in replies:
        text = whole(reply)
        why = f"no reply: {reply.why}" if reply.why else _fault(config, row, reply, text)
        if not why:
            text = shaped(text, str(row["answer"]), config.distill.form)
            why = unusable(text)
        if why:
            made.reject(why, str(row["messages"][0]["content"]), text)
        else:
            found.append(text)
    return found


def whole(reply: Reply) -> str:
    """The reply with what a server hands over apart, the thoughts, put back before it."""
    text = reply.text.strip()
    return f"<think>\n{reply.reasoning.strip()}\n</think>\n{text}" if reply.reasoning.strip() else text


def shaped(text: str, answer: str, form: str) -> str:
    """A right solution in the form that is wanted."""
    thought = THOUGHT.match(text)
    if form == "keep":
        return text
    if form == "answer":
        return aloud(text)
    steps = thought[1].strip() if thought else _LAST.sub("", _ANSWER_TAGS.sub("", text)).strip()
    return written(steps, answer, "think")


def _fault(config: SynthConfig, row: Row, reply: Reply, text: str) -> str:
    if reply.finish == "length":
        return "cut at max_new_tokens"
    if why := unusable(text):
        return why
    if text.count("<think>") != text.count("</think>"):
        return "thoughts without an end"
    # An answer counts where it is given, not where it was thought of.
    verdict = check(row, aloud(text), _sandbox(row))
    if not verdict.correct:
        return "wrong"
    formatted = not config.distill.formatted or check(row, text, _sandbox(row)).formatted
    return "" if formatted else "not in the taught form"


def _sandbox(row: Row) -> Any:
    if row.get("check") != "code":
        return None
    from llmctl.tools.python import run_python

    return run_python


def _kept(config: SynthConfig, found: list[str], row: Row, made: Made) -> list[str]:
    options, seen = config.distill, Near(config.distill.alike)
    kept: list[str] = []
    ordered = sorted(found, key=len) if options.keep == "shortest" else found
    most = options.most if options.keep == "all" else 1
    for text in ordered:
        if not seen.add(text):
            made.reject("right, and like another", str(row["messages"][0]["content"]), text)
        elif len(kept) >= most:
            made.reject("right, and not needed", str(row["messages"][0]["content"]), text)
        else:
            kept.append(text)
    return kept


def _taught(row: Row, text: str) -> Row:
    return {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": text}]}


def _asked(row: Row, instruction: str) -> list[dict[str, Any]]:
    told = [{"role": "system", "content": instruction}] if instruction else []
    asked = row["messages"][:-1]
    if told and asked and asked[0]["role"] == "system":
        told, asked = [{"role": "system", "content": f"{instruction}\n\n{asked[0]['content']}"}], asked[1:]
    return [*told, *asked]


def _instruction(config: SynthConfig) -> str:
    if config.distill.instruction is not None:
        return config.distill.instruction
    return "" if config.teacher else INSTRUCTION
