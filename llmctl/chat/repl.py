"""The prompt loop: what is typed goes to the model, its words come as they are made, its tool calls are seen.

Works the same from a pipe, a line a turn. Replies go to stdout; everything else, such as prompts and notes, to stderr.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field

from llmctl.chat.commands import perform
from llmctl.chat.config import ChatConfig
from llmctl.chat.session import Session
from llmctl.chat.speaker import load_speaker, sampling_of
from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.generate.engine import Piece
from llmctl.model.chat_format import WRAPS
from llmctl.workspace import Workspace

_PROMPT = "> "
# What a model says may hold any byte; a terminal would obey some of them (move the cursor, change its title).
_CONTROLS = {c: 0xFFFD for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}


def start(workspace: Workspace, config: ChatConfig, console: Console) -> None:
    """Talk until the input ends, /quit, or Ctrl-C twice."""
    speaker = load_speaker(workspace, config)
    talk = Talk(workspace, config, Session(speaker, sampling_of(config), config.system), Screen(console))
    kind = "answers" if speaker.chats else "is a base model: it continues what you type, an empty line goes on"
    talk.screen.note(f"{speaker.name} {kind}. /help shows the commands, /quit leaves.")
    talk.run()


class Screen:
    """Where things are shown: the model's words on stdout, the rest on stderr."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.colour = sys.stdout.isatty()
        self.typed = sys.stdin.isatty()
        if self.typed:
            with suppress(ImportError):
                import readline  # noqa: F401 - line editing and history for input()

    def note(self, text: str) -> None:
        """A line that is not the model's."""
        self.console.info(text)

    def ask(self) -> str:
        """The next line typed, lines that end in a backslash joined. EOFError at the end of the input."""
        lines: list[str] = []
        while True:
            line = input(_PROMPT if not lines else ". ") if self.typed else _read_line()
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def say(self, text: str, quiet: bool = False) -> None:
        """A piece of a reply; `quiet` ones (tool calls and results) are dimmed."""
        text = text.translate(_CONTROLS)
        sys.stdout.write(f"\x1b[2m{text}\x1b[0m" if quiet and self.colour and text else text)
        sys.stdout.flush()


@dataclass
class Talk:
    """One sitting at the prompt."""

    workspace: Workspace
    config: ChatConfig
    session: Session
    screen: Screen
    last: str | None = None
    """What was said last, for /retry."""
    over: bool = False
    _interrupts: int = field(default=0, init=False)

    def run(self) -> None:
        """Read and answer until it is over."""
        while not self.over:
            try:
                line = self.screen.ask()
                self._interrupts = 0
                self.turn(line)
            except EOFError:
                return
            except KeyboardInterrupt:
                self._interrupted()
            except UserError as e:
                self.screen.note(e.message())

    def turn(self, line: str) -> None:
        """One line: a command, or words for the model."""
        if line.startswith("/"):
            perform(self, line)
        elif line.strip() or (not self.session.speaker.chats and self.session.text):
            if line.strip() and not self.session.speaker.chats:
                self.session.clear()  # every line typed begins a text of its own; an empty one goes on with the last
            self.last = line
            self.reply(line)

    def reply(self, said: str) -> None:
        """Show the reply to `said` as it is made."""
        begun, count, marks = time.monotonic(), 0, _Marks(self.session)
        if not self.session.speaker.chats:
            self.screen.say(said, quiet=True)
        try:
            with closing(self.session.reply(said)) as pieces:  # type: ignore[type-var]
                for piece in pieces:
                    count += not piece.forced
                    self.screen.say(*marks.shown(piece))
        except KeyboardInterrupt:
            self.screen.say("\n")
            self.screen.note("(stopped; what was said is kept)")
            self._interrupts = 1
            return
        self.screen.say("\n")
        self._footer(count, time.monotonic() - begun)

    def _footer(self, count: int, seconds: float) -> None:
        if self.session.dropped:
            self.screen.note("(the context is full: the oldest of the conversation is left out)")
        if self.screen.typed:
            self.screen.note(f"({count} tokens, {count / max(seconds, 1e-6):,.0f}/s)")

    def _interrupted(self) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            self.over = True
        else:
            self.screen.note("(Ctrl-C again, or /quit, leaves)")


class _Marks:
    """Turns tool tokens into something to look at, and tells what is the model's own speech."""

    def __init__(self, session: Session) -> None:
        specials = session.speaker.tokenizer.specials
        self._opening = {specials.get(w[0]): kind for kind, w in WRAPS.items() if w[0]}
        self._closing = {specials.get(w[1]) for w in WRAPS.values() if w[1]}
        self._within = False

    def shown(self, piece: Piece) -> tuple[str, bool]:
        """(text to show, whether it belongs to a tool call or its result)."""
        if piece.id in self._opening:
            self._within = True
            kind = self._opening[piece.id]
            return ("\n  = " if kind == "output" else f"\n  [{kind}] "), True
        if piece.id in self._closing:
            self._within = False
            return "\n", True
        return piece.text, self._within


def _read_line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")
