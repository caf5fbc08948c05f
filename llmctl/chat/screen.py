"""Where a talk is shown: the model's words on stdout, everything else on stderr, and lines are read.

`Screen` works through pipes, a line a turn. `Terminal` (terminal.py) is what a person sits at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from llmctl.console import Console

# What a model says may hold any byte; a terminal would obey some of them (move the cursor, change its title).
_CONTROLS = {c: 0xFFFD for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}
Completions = Callable[[str], Iterable[str]]
"""What may stand in the place of the last word of a line."""


class Screen:
    """Plain text."""

    typed = False
    """Whether a person sits there, who sees notes and can be asked again."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def note(self, text: str) -> None:
        """A line that is not the model's."""
        self.console.info(safe(text))

    def ask(self, prompt: str = "> ", default: str = "", completions: Completions | None = None) -> str:
        """The next line, those that end in a backslash joined to the next. EOFError at the end of the input."""
        lines: list[str] = []
        while True:
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            line = line.rstrip("\n")
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def say(self, text: str, quiet: bool = False, markdown: bool = False) -> None:
        """A piece of a reply; `quiet` ones are tool calls and their results, or what was typed itself."""
        sys.stdout.write(safe(text))
        sys.stdout.flush()

    def foot(self, text: str) -> None:
        """Figures about a reply, which only a person wants to see."""

    def end(self) -> None:
        """The reply is over."""
        sys.stdout.write("\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing more is shown or asked."""


def safe(text: str) -> str:
    """`text` without the control characters that a terminal would obey."""
    return text.translate(_CONTROLS)


def screen_for(console: Console, history: str | None, markdown: bool) -> Screen:
    """A terminal where there is one to sit at, else plain text. `history`: the file that keeps what was typed."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return Screen(console)
    try:
        from llmctl.chat.terminal import Terminal
    except ImportError:
        console.warn("prompt_toolkit is not installed: plain input, without history or completion")
        return Screen(console)
    return Terminal(console, history, markdown)
