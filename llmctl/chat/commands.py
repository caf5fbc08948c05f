"""The commands of the REPL, each a function of the talk and what was typed behind its name.

A command's docstring is its line in /help.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmctl.chat.save import save_conversations
from llmctl.errors import UserError, nearest
from llmctl.recipe.source import parse

if TYPE_CHECKING:
    from llmctl.chat.repl import Talk

_SETTABLE = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens", "seed",
)  # fmt: skip
CORRECTIONS = "corrections"


def show_help(talk: Talk, rest: str) -> None:
    """Show this."""
    for name, command in COMMANDS.items():
        talk.screen.note(f"/{name:<8} {(command.__doc__ or '').strip()}")
    talk.screen.note("Ctrl-C stops a reply; twice, or /quit, leaves. A line that ends in \\ goes on in the next.")


def new(talk: Talk, rest: str) -> None:
    """Begin a new conversation."""
    talk.session.clear()
    talk.screen.note("a new conversation")


def system(talk: Talk, rest: str) -> None:
    """Set the system message (`/system TEXT`; without TEXT, none) and begin anew."""
    if not talk.session.speaker.chats:
        raise UserError("a base model has no system message", fix="write it into the text")
    talk.session.system = rest
    new(talk, "")


def set_(talk: Talk, rest: str) -> None:
    """Change how replies are sampled: `/set temperature=0.5`; without anything, show it."""
    for pair in rest.split():
        key, sign, value = pair.partition("=")
        if key not in _SETTABLE or not sign:
            raise UserError(
                f"cannot set {pair!r}{nearest(key, _SETTABLE)}", fix="/set KEY=VALUE; " + ", ".join(_SETTABLE)
            )
        found, wanted = parse(value, f"/set {key}").data, getattr(talk.session.sampling, key)
        if isinstance(found, bool) or not isinstance(found, int if isinstance(wanted, int) else (int, float)):
            raise UserError(f"{key} is {value!r}; it should be a {'whole ' * isinstance(wanted, int)}number")
        changed: dict[str, Any] = {key: found}
        talk.session.sampling = dataclasses.replace(talk.session.sampling, **changed)
    talk.screen.note(" ".join(f"{k}={getattr(talk.session.sampling, k)}" for k in _SETTABLE))


def probs(talk: Talk, rest: str) -> None:
    """Show the likeliest first tokens of the last reply, or of one to `/probs TEXT`."""
    for text, token, p in talk.session.probabilities(rest):
        talk.screen.note(f"{p:7.2%} {'█' * round(p * 30):<30} {token:>7} {text!r}")


def tokens(talk: Talk, rest: str) -> None:
    """Show the conversation as token ids; those that training would train on are marked with *."""
    marked = talk.session.tokens()
    for token, text, trained in marked:
        talk.screen.note(f"{token:>7} {'*' if trained else ' '} {text!r}")
    talk.screen.note(f"{len(marked):,} tokens of {talk.session.speaker.context:,}")


def undo(talk: Talk, rest: str) -> None:
    """Take the last question and its answer back."""
    talk.session.undo()
    talk.screen.note("taken back")


def retry(talk: Talk, rest: str) -> None:
    """Ask the last question again; the answer differs unless the temperature is 0."""
    if talk.last is None:
        raise UserError("nothing has been said yet")
    talk.session.undo()
    talk.reply(talk.last)


def save(talk: Talk, rest: str) -> None:
    """Keep the conversation in the workspace (`/save NAME`), as `llmctl sft` takes it."""
    made = save_conversations(talk.workspace, talk.config, rest or "chat", [_row(talk)])
    talk.screen.note(f"saved: conversations/{made.name}")


def good(talk: Talk, rest: str) -> None:
    """Keep the conversation as a good example, in the conversations `corrections`."""
    _correct(talk, _row(talk))


def bad(talk: Talk, rest: str) -> None:
    """Put what should have been said in the place of the last reply (`/bad TEXT`) and keep it in `corrections`."""
    if not rest:
        raise UserError("say what the right answer is", fix="/bad TEXT")
    row = _row(talk)
    row["messages"][-1] = {"role": "assistant", "content": rest}
    _correct(talk, row)
    talk.session.messages[-1] = row["messages"][-1]


def quit_(talk: Talk, rest: str) -> None:
    """Leave."""
    talk.over = True


COMMANDS: dict[str, Callable[[Talk, str], None]] = {
    "help": show_help, "new": new, "system": system, "set": set_, "probs": probs, "tokens": tokens, "undo": undo,
    "retry": retry, "good": good, "bad": bad, "save": save, "quit": quit_,
}  # fmt: skip


def perform(talk: Talk, line: str) -> None:
    """Run the command in `line`, which begins with a slash. UserError where there is none of that name."""
    name, _, rest = line[1:].strip().partition(" ")
    if name not in COMMANDS:
        raise UserError(f"no command /{name}{nearest(name, COMMANDS)}", fix="/help shows them")
    COMMANDS[name](talk, rest.strip())


def _row(talk: Talk) -> dict[str, Any]:
    if not talk.session.messages:
        raise UserError("there is no conversation yet")
    return {"messages": [dict(m) for m in talk.session.dialogue()], "kind": "chat"}


def _correct(talk: Talk, row: dict[str, Any]) -> None:
    made = save_conversations(talk.workspace, talk.config, CORRECTIONS, [row], append=True)
    talk.screen.note(f"kept in conversations/{made.name} ({made.figures['conversations']} so far)")
