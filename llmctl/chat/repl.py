"""The prompt loop: what is typed goes to the model, its words come as they are made, its tool calls are seen.

Works the same from a pipe, a line a turn. Replies go to stdout; everything else, such as prompts and notes, to stderr.
"""

from __future__ import annotations

from llmctl.chat.commands import completions, perform
from llmctl.chat.config import ChatConfig
from llmctl.chat.log import Log
from llmctl.chat.reward import Judge
from llmctl.chat.screen import Screen, screen_for
from llmctl.chat.session import Session
from llmctl.chat.speaker import load_speaker, sampling_of
from llmctl.chat.talk import Talk
from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.workspace import Workspace


def start(workspace: Workspace, config: ChatConfig, console: Console, screen: Screen | None = None) -> None:
    """Talk until the input ends, /quit, or Ctrl-C twice."""
    history = str(workspace.root / "chat_history") if config.log and workspace.root.is_dir() else None
    screen = screen or screen_for(console, history, config.markdown)
    try:
        _start(workspace, config, screen)
    finally:
        screen.close()


def _start(workspace: Workspace, config: ChatConfig, screen: Screen) -> None:
    speaker = load_speaker(workspace, config)
    log = Log(workspace) if config.log else None
    talk = Talk(workspace, config, Session(speaker, sampling_of(config), config.system), screen, log)
    talk.judge = Judge(workspace, config.reward) if config.reward else None
    kind = "answers" if speaker.chats else "is a base model: it continues what you type, an empty line goes on"
    screen.note(f"{speaker.name} {kind}. /help shows the commands, /quit leaves.")
    if speaker.tools is not None and (off := speaker.tools.off()):
        screen.note(off)
    try:
        _loop(talk)
    finally:
        if log is not None:
            log.close()


def _loop(talk: Talk) -> None:
    interrupts = 0
    while not talk.over:
        try:
            line = talk.screen.ask("> ", completions=lambda line: completions(talk, line))
            interrupts = 0
            _turn(talk, line)
            if talk.stopped:
                interrupts, talk.stopped = 1, False
        except EOFError:
            return
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts > 1:
                return
            talk.screen.note("(Ctrl-C again, or /quit, leaves)")
        except UserError as e:
            talk.screen.note(e.message())


def _turn(talk: Talk, line: str) -> None:
    """One line: a command, or words for the model."""
    session = talk.session
    if line.startswith("/"):
        perform(talk, line)
    elif line.strip() or (not session.speaker.chats and session.text):
        if line.strip() and not session.speaker.chats:
            session.clear()  # every line typed begins a text of its own; an empty one goes on with the last
        talk.last = line
        talk.reply(line)
