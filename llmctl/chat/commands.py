"""The commands of the REPL: their names, their help, and what completes them.

Each is a function of the talk and what was typed behind its name; its docstring is its line in /help.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator

from llmctl.chat import commands_dialogue as dialogue
from llmctl.chat import commands_judge as judge
from llmctl.chat import commands_look as look
from llmctl.chat.talk import Talk
from llmctl.errors import UserError, nearest

_NARROW = 60  # columns, below which a second column would leave too little to read


def show_help(talk: Talk, rest: str) -> None:
    """Show this."""
    width = shutil.get_terminal_size().columns
    more = " " * (11 if width >= _NARROW else 2)
    for name, command in COMMANDS.items():
        line = f"/{name:<9} {(command.__doc__ or '').strip()}"
        talk.screen.note(textwrap.fill(line, width, subsequent_indent=more) if talk.screen.typed else line)
    talk.screen.note("Ctrl-C stops a reply; twice, or /quit, leaves. A line that ends in \\ goes on in the next.")


def quit_(talk: Talk, rest: str) -> None:
    """Leave."""
    talk.over = True


COMMANDS: dict[str, Callable[[Talk, str], None]] = {
    "help": show_help, "new": dialogue.new, "system": dialogue.system, "retry": dialogue.retry, "undo": dialogue.undo,
    "edit": dialogue.edit, "save": dialogue.save, "load": dialogue.load, "fork": dialogue.fork,
    "history": dialogue.history, "set": look.set_, "model": look.model, "tools": look.tools, "tokens": look.tokens,
    "probs": look.probs, "thinking": look.thinking, "good": judge.good, "bad": judge.bad, "compare": judge.compare,
    "score": judge.score, "n": judge.several, "quit": quit_,
}  # fmt: skip


def perform(talk: Talk, line: str) -> None:
    """Run the command in `line`, which begins with a slash. UserError where there is none of that name."""
    name, _, rest = line[1:].strip().partition(" ")
    if name not in COMMANDS:
        raise UserError(f"no command /{name}{nearest(name, COMMANDS)}", fix="/help shows them")
    COMMANDS[name](talk, rest.strip())


def completions(talk: Talk, line: str) -> Iterator[str]:
    """What the last word of `line` may become."""
    if not line.startswith("/"):
        return
    name, space, rest = line[1:].partition(" ")
    if not space:
        yield from (f"/{c}" for c in COMMANDS if c.startswith(name))
        return
    kinds = {"model": ["model"], "compare": ["model"], "score": ["model"], "load": ["conversations"]}
    words = [a.name for kind in kinds.get(name, []) for a in talk.workspace.artifacts(kind)]
    if name == "set":
        words = [f"{k}=" for k in look.SETTABLE]
    elif name == "tools":
        words = ["python", "search", "on", "off"]
        words += [a.name for kind in ("conversations", "corpus") for a in talk.workspace.artifacts(kind)]
    last = rest.rpartition(" ")[2]
    yield from (w for w in words if w.startswith(last))
