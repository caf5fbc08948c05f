"""The terminal: a line editor with history and completion, Markdown as it arrives, thinking folded, a quiet footer.

prompt_toolkit and rich are imported here and in `marked`, nowhere else in chat: pipes and servers do not pay for them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.shortcuts import CompleteStyle
from rich.console import Console as Rich
from rich.live import Live
from rich.text import Text

from llmctl.chat.marked import marked
from llmctl.chat.screen import Completions, Screen, safe
from llmctl.console import Console

_REDRAW = 0.06  # seconds: often enough to look fluent, seldom enough to cost nothing beside a token


class Terminal(Screen):
    """For a person. Enter sends, Alt-Enter or a `\\` at the end begins a line, Ctrl-R searches what was typed."""

    typed = True

    def __init__(self, console: Console, history: str | None, markdown: bool) -> None:
        super().__init__(console)
        kept: History = FileHistory(history) if history else InMemoryHistory()
        self._prompt: PromptSession[str] = PromptSession(
            history=kept,
            key_bindings=_keys(),
            multiline=True,
            complete_style=CompleteStyle.READLINE_LIKE,  # as in a shell; a menu would keep eight lines free for itself
            complete_while_typing=False,
        )
        self._typing = _Unseen()
        self._rich = Rich(file=sys.stdout, highlight=False, soft_wrap=True)
        self._markdown = markdown
        self._block: _Block | None = None
        self._fold = Fold()
        self.thoughts = ""
        """What the last reply thought, for /thinking."""

    def ask(self, prompt: str = "> ", default: str = "", completions: Completions | None = None) -> str:
        """What is typed. KeyboardInterrupt for Ctrl-C, EOFError for Ctrl-D on an empty line."""
        return self._prompt.prompt(
            prompt,
            default=default,
            completer=_Words(completions) if completions else None,
            prompt_continuation=". ",
        )

    def say(self, text: str, quiet: bool = False, markdown: bool = False) -> None:
        """A piece of a reply."""
        if quiet:
            self._settle()
            self._rich.print(Text(safe(text), style="dim"), end="")
            return
        for part, thinking in self._fold.push(text):
            self._part(safe(part), thinking, markdown and self._markdown)

    def end(self) -> None:
        """The reply is over."""
        for part, thinking in self._fold.rest():
            self._part(safe(part), thinking, self._block is not None)
        whole = self._block is not None
        self._settle()
        self._fold = Fold()
        if not whole:
            self._rich.print()

    def close(self) -> None:
        """Give the terminal back as it was."""
        self._typing.end()

    def foot(self, text: str) -> None:
        """A line of figures under a reply, dimmed. No toolbar: that needs a terminal that tells its cursor's place."""
        self._rich.print(Text(text, style="dim"))

    def _part(self, text: str, thinking: bool, markdown: bool) -> None:
        if thinking:
            if not self._fold.announced:
                self._fold.announced, self.thoughts = True, ""
                self._settle()
                self._rich.print(Text("(thinking; /thinking shows it)", style="dim"))
            self.thoughts += text
        elif markdown:
            if self._block is None:
                self._block = _Block(self._rich)
            self._block.push(text)
        else:
            self._rich.print(Text(text), end="")

    def _settle(self) -> None:
        if self._block is not None:
            self._block.close()
            self._block = None


class _Unseen:
    """What is typed while the model loads or speaks is not shown amid its words, and is there at the next prompt,
    line by line: Enter stays Enter, which the terminal itself would turn into a line break of one message.
    """

    def __init__(self) -> None:
        self._before: Any = None
        with suppress(ImportError, OSError, ValueError):  # Windows; stdin is no terminal after all
            import termios

            mode = termios.tcgetattr(sys.stdin.fileno())
            self._before = list(mode)
            mode[0] &= ~termios.ICRNL
            mode[3] &= ~termios.ECHO
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, mode)

    def end(self) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, self._before)


class Fold:
    """Tells what stands between <think> and </think> from what is said, whatever way the text is cut."""

    def __init__(self) -> None:
        self.within = self.announced = False
        self._held = ""

    def push(self, text: str) -> Iterator[tuple[str, bool]]:
        """(text, whether it is thought) as far as that is certain."""
        text = self._held + text
        while True:
            mark = "</think>" if self.within else "<think>"
            before, found, after = text.partition(mark)
            if not found:
                break
            if before:
                yield before, self.within
            text, self.within = after.lstrip("\n") if self.within else after, not self.within
        hold = next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
        self._held = text[len(text) - hold :]
        if text[: len(text) - hold]:
            yield text[: len(text) - hold], self.within

    def rest(self) -> Iterator[tuple[str, bool]]:
        """What was held back."""
        if self._held:
            yield self._held, self.within
        self._held = ""


class _Block:
    """Markdown shown as it grows: the paragraph or code in the making as raw text, finished ones for good.

    Only the unfinished block is ever drawn again, so an answer longer than the screen scrolls like any other text.
    """

    def __init__(self, rich: Rich) -> None:
        self._rich, self._text, self._drawn = rich, "", 0.0
        self._live = Live(console=rich, auto_refresh=False, transient=True)
        self._live.start()

    def push(self, text: str) -> None:
        self._text += text
        while (cut := block_end(self._text)) is not None:
            done, self._text = self._text[:cut], self._text[cut:]
            self._live.update(Text(""), refresh=True)
            self._rich.print(marked(done), soft_wrap=False)
            self._rich.print()
        if time.monotonic() - self._drawn > _REDRAW:
            self._drawn = time.monotonic()
            tail = self._text.splitlines()[-max(2, self._rich.height - 4) :]
            self._live.update(Text("\n".join(tail)), refresh=True)

    def close(self) -> None:
        self._live.update(Text(""), refresh=True)
        self._live.stop()
        if self._text.strip():
            self._rich.print(marked(self._text), soft_wrap=False)


def block_end(text: str) -> int | None:
    """Where the first block of Markdown ends: behind an empty line outside of a code fence. None: not yet."""
    fence, at = "", 0
    for line in text.splitlines(keepends=True):
        at += len(line)
        mark = line.lstrip()[:3]
        if fence:
            if mark == fence and not line.strip().strip(fence[0]):
                fence = ""
        elif mark in ("```", "~~~"):
            fence = mark
        elif not line.strip() and line.endswith("\n") and text[:at].strip():
            return at
    return None


class _Words(Completer):
    def __init__(self, completions: Completions) -> None:
        self._completions = completions

    def get_completions(self, document: Document, complete_event: Any) -> Iterator[Completion]:
        line = document.text_before_cursor
        word = line.rpartition(" ")[2]
        for found in self._completions(line):
            yield Completion(found, start_position=-len(word))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: Any) -> None:
        buffer = event.current_buffer
        if buffer.document.current_line_before_cursor.endswith("\\") and buffer.document.is_cursor_at_the_end:
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    return keys
