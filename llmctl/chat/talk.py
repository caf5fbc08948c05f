"""One sitting at the prompt: the dialogue, where it is shown, and where it is kept."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import dataclass, field

from llmctl.chat.config import ChatConfig
from llmctl.chat.log import Log, Turn
from llmctl.chat.reward import Judge
from llmctl.chat.screen import Screen
from llmctl.chat.session import Session
from llmctl.chat.several import said as words
from llmctl.chat.speaker import Speaker
from llmctl.errors import UserError
from llmctl.generate.engine import Piece
from llmctl.model.chat_format import WRAPS
from llmctl.workspace import Workspace


@dataclass
class Talk:
    """What the commands work on."""

    workspace: Workspace
    config: ChatConfig
    session: Session
    screen: Screen
    log: Log | None = None
    chat: int = 0
    """Its number in the log; 0 before the first reply."""
    last: str | None = None
    """What was said last, for /retry."""
    over: bool = False
    best: int = 1
    """How many answers are made, of which one is taken."""
    judge: Judge | None = None
    others: dict[str, Speaker] = field(default_factory=dict)
    """Other models to compare with, once loaded."""
    stopped: bool = field(default=False, init=False)
    """Whether Ctrl-C has just stopped a reply."""

    def reply(self, said: str) -> None:
        """Show the reply to `said` as it is made, and keep it."""
        if self.best > 1:
            self.choose(said, self.session.several(said, self.best))
            return
        begun, count, marks = time.monotonic(), 0, Marks(self.session)
        if not self.session.speaker.chats:
            self.screen.say(said, quiet=True)
        try:
            with closing(self.session.reply(said)) as pieces:  # type: ignore[type-var]
                for piece in pieces:
                    count += not piece.forced
                    text, quiet = marks.shown(piece)
                    self.screen.say(text, quiet, markdown=self.session.speaker.chats)
        except KeyboardInterrupt:
            self.stopped = True
        finally:
            self.screen.end()
        self.keep()
        self._footer(count, time.monotonic() - begun)

    def choose(self, said: str, turns: list[Turn]) -> None:
        """Take the best of several answers to `said`: the reward model's choice, else the person's."""
        speaker, session = self.session.speaker, self.session
        before = [*session.dialogue(), {"role": "user", "content": said}]
        scores = None
        if self.judge is not None and speaker.chats:
            scores = self.judge.score([[*before, {"role": "assistant", "content": t.content}] for t in turns])
        for i, turn in enumerate(turns):
            score = f"  ({scores[i]:+.2f})" if scores else ""
            self.screen.note(f"[{i + 1}]{score} {words(speaker, turn) or '(no words)'}")
        best = max(range(len(turns)), key=lambda i: scores[i]) if scores else self._asked(len(turns))
        session.take(turns[best], said)
        self.screen.say(words(speaker, turns[best]), markdown=speaker.chats)
        self.screen.end()
        self.keep()

    def keep(self) -> None:
        """Write the last reply into the log."""
        if self.log is not None and self.session.made is not None:
            if not self.chat:
                self.chat = self.log.begin("repl", self.session.speaker)
            self.log.add(self.chat, self.session.speaker, self.session.made, self.session.standing())

    def changed(self) -> None:
        """Tell the log that the dialogue stands otherwise now."""
        if self.log is not None and self.chat:
            self.log.stands(self.chat, self.session.standing())

    def needs_log(self) -> Log:
        """The log. UserError where there is none."""
        if self.log is None:
            raise UserError("nothing is kept in this chat", fix="leave out log=false")
        return self.log

    def _asked(self, count: int) -> int:
        """Which of `count` the person takes; the first where nobody says."""
        with suppress(EOFError, KeyboardInterrupt):
            while self.screen.typed and (found := self.screen.ask(f"which one? 1-{count} [1] ").strip()):
                if found.isdigit() and 1 <= int(found) <= count:
                    return int(found) - 1
        return 0

    def _footer(self, count: int, seconds: float) -> None:
        made, context = self.session.made, self.session.speaker.context
        if self.stopped:
            self.screen.note("(stopped; what was said is kept)")
        if self.session.dropped:
            what = "conversation" if self.session.speaker.chats else "text"
            self.screen.note(f"(the context is full: the oldest of the {what} is left out)")
        if made is not None:
            used = len(made.prompt) + len(made.ids)
            rate = count / max(seconds, 1e-6)
            self.screen.foot(f"{self.session.speaker.name} · {rate:,.0f} tokens/s · {used:,} of {context:,} context")


class Marks:
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
