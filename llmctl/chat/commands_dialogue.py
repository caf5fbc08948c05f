"""Commands that change the dialogue, keep it, or bring one back."""

from __future__ import annotations

from llmctl.chat.feedback import conversation
from llmctl.chat.save import save_conversations
from llmctl.chat.talk import Talk
from llmctl.chat.turn import words_of
from llmctl.errors import UserError
from llmctl.formats.conversations import read_conversations


def new(talk: Talk, rest: str) -> None:
    """Begin a new conversation."""
    talk.session.clear()
    talk.chat, talk.last = 0, None
    talk.screen.note("a new conversation")


def system(talk: Talk, rest: str) -> None:
    """Set the system message (`/system TEXT`; without TEXT, none) and begin anew."""
    if not talk.session.speaker.chats:
        raise UserError("a base model has no system message", fix="write it into the text")
    talk.session.system = rest
    new(talk, "")


def undo(talk: Talk, rest: str) -> None:
    """Take the last question and its answer back."""
    talk.session.undo()
    talk.last = _last_question(talk)
    talk.changed()
    talk.screen.note("taken back")


def retry(talk: Talk, rest: str) -> None:
    """Ask the last question again; the answer differs unless the temperature is 0."""
    if talk.last is None:
        raise UserError("nothing has been said yet")
    talk.session.undo()
    talk.reply(talk.last)


def edit(talk: Talk, rest: str) -> None:
    """Put another question in the place of the last (`/edit TEXT`; without TEXT, edit the old) and ask it."""
    if talk.last is None:
        raise UserError("nothing has been said yet")
    if not rest and not talk.screen.typed:
        raise UserError("say what to ask instead", fix="/edit TEXT")
    said = rest or talk.screen.ask("edit> ", talk.last)
    talk.session.undo()
    talk.last = said
    talk.reply(said)


def save(talk: Talk, rest: str) -> None:
    """Keep the conversation in the workspace (`/save NAME`), as `llmctl sft` takes it."""
    if not talk.session.messages:
        raise UserError("there is no conversation yet")
    made = save_conversations(talk.workspace, talk.config, rest or "chat", [conversation(talk.session.dialogue())])
    talk.screen.note(f"saved: conversations/{made.name}")


def load(talk: Talk, rest: str) -> None:
    """Go on with a chat of the log (`/load 12`) or with saved conversations (`/load NAME`, the first of them)."""
    if not rest:
        raise UserError("say which", fix="/load NUMBER (/history shows them) or /load NAME")
    if rest.isdigit():
        standing, chat = talk.needs_log().dialogue(int(rest)), int(rest)
    else:
        folder = talk.workspace.find(rest, ["conversations"]).path
        standing, chat = read_conversations(folder).rows[0]["messages"], 0
    talk.session.restore(standing)
    talk.chat = chat
    talk.last = _last_question(talk)
    _show(talk)


def fork(talk: Talk, rest: str) -> None:
    """Go on in a copy: what has been said so far stays as it is under its own number."""
    log, old = talk.needs_log(), talk.chat
    if not old:
        raise UserError("there is no conversation yet")
    talk.chat = log.begin("repl", talk.session.speaker)
    talk.changed()
    talk.screen.note(f"chat {old} stays as it is; this is chat {talk.chat}")


def history(talk: Talk, rest: str) -> None:
    """List the latest chats, or show one (`/history 12`)."""
    log = talk.needs_log()
    if rest:
        if not rest.isdigit():
            raise UserError(f"{rest!r} is no number of a chat", fix="/history lists them")
        for m in log.dialogue(int(rest)):
            talk.screen.note(f"{m['role']}: {words_of(m['content'])}")
        return
    found = log.chats()
    for chat in reversed(found):
        first = next((words_of(m["content"]) for m in chat["dialogue"] if m["role"] in ("user", "document")), "")
        here = "*" if chat["id"] == talk.chat else " "
        line = " ".join(first.split())[:60]
        talk.screen.note(
            f"{here}{chat['id']:>5}  {chat['began']}  {chat['model']:<12} {chat['turns']:>3} replies  {line}"
        )
    if not found:
        talk.screen.note("no chat yet")


def _last_question(talk: Talk) -> str | None:
    asked = [m["content"] for m in talk.session.messages if m["role"] == "user"]
    return words_of(asked[-1]) if asked else None


def _show(talk: Talk) -> None:
    for m in talk.session.messages or [{"role": "document", "content": talk.session.text}]:
        talk.screen.note(f"{m['role']}: {words_of(m['content'])}")
