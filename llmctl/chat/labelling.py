"""A person's judgement, prompt by prompt: answers ordered from best to worst (`--rank`), or written (`--write`).

As InstructGPT's labellers worked (arXiv 2203.02155, appendix B): the instructions in view, K answers ranked at once,
since one ranking of K holds K(K-1)/2 comparisons. Each judgement is in the log before the next prompt is shown, and a
prompt that has one is passed over: one may leave at any time and go on another day.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.chat import feedback
from llmctl.chat.config import ChatConfig
from llmctl.chat.log import Log
from llmctl.chat.screen import Screen, screen_for
from llmctl.chat.session import Session
from llmctl.chat.several import said, several
from llmctl.chat.speaker import Speaker, load_speaker, sampling_of
from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.formats.conversations import prompt_turns
from llmctl.formats.json_rows import SUFFIXES, Skipped, read_rows
from llmctl.formats.turns import Message, Unusable, tidy
from llmctl.workspace import Artifact, Workspace

INSTRUCTIONS = """\
What a good answer is, the most important first:
  helpful   it does what was asked, clearly and to the point, and asks back where the question is unclear
  true      it makes nothing up, and says what it does not know
  harmless  nobody is hurt, deceived or insulted by it
Where they conflict: true and harmless before helpful, unless the harm is slight. Judge what it says, not its length."""
_KEYS = "question prompt instruction messages"


@dataclass
class _Desk:
    """What a labeller works with. `kind/name` is what the judgements become."""

    config: ChatConfig
    log: Log
    screen: Screen
    kind: str
    name: str
    prompts: list[list[Message]]

    def todo(self) -> Iterator[tuple[str, list[Message]]]:
        """(key, prompt) of each that is not judged yet, shown with its number."""
        done = self.log.judged(self.kind, self.name)
        self.screen.note(_instructions(self.config))
        for number, prompt in enumerate(self.prompts, 1):
            key = feedback.key_of(prompt)
            if key not in done:
                self.screen.note(f"\n--- {number} of {len(self.prompts)}")
                for turn in prompt:
                    self.screen.note(f"{turn['role']}: {turn['content']}")
                yield key, prompt

    def ask(self, prompt: str) -> str | None:
        """What is typed; None for /quit or the end of the input. `?` shows the instructions again."""
        while True:
            try:
                line = self.screen.ask(prompt).strip()
            except (EOFError, KeyboardInterrupt):
                return None
            if line == "?":
                self.screen.note(_instructions(self.config))
            else:
                return None if line in ("/quit", "/q") else line

    def keep(self, key: str, row: dict[str, Any]) -> None:
        feedback.keep(self.log, self.kind, self.name, row, key)


def rank(workspace: Workspace, config: ChatConfig, path: Path, count: int, console: Console) -> Artifact | None:
    """Have `count` answers to each prompt of `path` ordered: comparisons `config.out`, or None where nothing was."""
    if count < 2:
        raise UserError("an order needs two answers or more", "--n", "--n 4")
    prompts, speaker = read_prompts(path), load_speaker(workspace, config)
    if not speaker.chats:
        raise UserError(f"{speaker.name} is a base model and does not answer")

    def work(desk: _Desk) -> None:
        for key, prompt in desk.todo():
            answers = _answers(speaker, config, prompt, count)
            if len(answers) < 2:
                desk.screen.note("(all its answers are the same: passed over)")
                continue
            for i, answer in enumerate(answers, 1):
                desk.screen.note(f"\n[{i}] {answer}")
            ranking = _order(desk, len(answers))
            if ranking is None:
                return
            if ranking:
                desk.keep(key, {**feedback.comparison(prompt, answers, ranking), "kind": "ranked"})

    return _sitting(workspace, config, console, "comparisons", prompts, work)


def write(workspace: Workspace, config: ChatConfig, path: Path, console: Console) -> Artifact | None:
    """Have each prompt of `path` answered by a person: conversations `config.out`, or None where none was."""

    def work(desk: _Desk) -> None:
        for key, prompt in desk.todo():
            answer = desk.ask("answer> ")
            if answer is None:
                return
            if answer:
                row = feedback.conversation([*prompt, {"role": "assistant", "content": answer}], "written")
                desk.keep(key, row)

    return _sitting(workspace, config, console, "conversations", read_prompts(path), work)


def read_prompts(path: Path) -> list[list[Message]]:
    """The prompts of a file: one a line of text, or JSON rows with a prompt, messages, a question or an instruction.

    UserError names the file and the first line that is none.
    """
    if not path.is_file():
        raise UserError("no such file", str(path))
    if not path.name.endswith(SUFFIXES):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found = [[{"role": "user", "content": line.strip()}] for line in lines if line.strip()]
    else:
        found = []
        for row in read_rows(path):
            if isinstance(row, Skipped):
                raise UserError(row.why, f"{row.file}:{row.line}")
            try:
                found.append(_prompt(row.value))
            except Unusable as e:
                raise UserError(str(e), f"{row.file}:{row.line}", f"a row needs one of: {_KEYS}") from None
    if not found:
        raise UserError("there is no prompt in it", str(path))
    return [p for i, p in enumerate(found) if p not in found[:i]]


def ranks(typed: str, count: int) -> list[int] | None:
    """The rank of each of `count` answers (0 is best) from an order such as `2 1=3 4`; None where it is none."""
    groups = [re.split(r"\s*=\s*", g) for g in re.split(r"[\s>,]+", re.sub(r"\s*=\s*", "=", typed.strip()))]
    numbers = [n for group in groups for n in group]
    if sorted(numbers) != sorted(str(i + 1) for i in range(count)):
        return None
    place = {n: rank for rank, group in enumerate(groups) for n in group}
    return [place[str(i + 1)] for i in range(count)]


def _sitting(
    workspace: Workspace, config: ChatConfig, console: Console, kind: str, prompts: list[list[Message]], work: Any
) -> Artifact | None:
    log, screen = Log(workspace), screen_for(console, None, False)
    desk = _Desk(config, log, screen, kind, config.out, prompts)
    try:
        try:
            work(desk)
        finally:
            made = feedback.publish(workspace, config, log, kind, config.out)
        left = len(prompts) - len(log.judged(kind, config.out).keys() & {feedback.key_of(p) for p in prompts})
    finally:
        screen.close()
        log.close()
    if made is None:
        console.info("nothing was kept")
        return None
    then = f"llmctl rm MODEL {made.name}" if kind == "comparisons" else f"llmctl sft MODEL {made.name}"
    console.done(f"{kind}/{made.name}: {made.figures[kind]} kept, {left} prompts left", then)
    return made


def _answers(speaker: Speaker, config: ChatConfig, prompt: list[Message], count: int) -> list[str]:
    """Up to `count` different answers, the same whenever they are asked for."""
    session = Session(speaker, sampling_of(config), config.system, list(prompt))
    made = several(speaker, session.prompt(), session.sampling, count)
    return list(dict.fromkeys(text for t in made if (text := said(speaker, t))))


def _order(desk: _Desk, count: int) -> list[int] | None:
    """Ranks; [] for a prompt that is passed over, None to leave."""
    while True:
        typed = desk.ask("best to worst (2 1=3 4), Enter passes over, /quit leaves: ")
        if not typed:
            return None if typed is None else []
        found = ranks(typed, count)
        if found is not None:
            return found
        desk.screen.note(f"write each number from 1 to {count} once, the best first; = between equal ones")


def _prompt(row: dict[str, Any]) -> list[Message]:
    given = next((row[key] for key in _KEYS.split() if key in row), None)
    if given is None:
        raise Unusable(f"its keys are {', '.join(list(row)[:8]) or 'none'}")
    turns = tidy(prompt_turns(given), answered=False)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    if not turns:
        raise Unusable("there is nothing to answer in it")
    return turns


def _instructions(config: ChatConfig) -> str:
    if not config.instructions:
        return INSTRUCTIONS
    try:
        return Path(config.instructions).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read the instructions: {e}", config.instructions) from e
