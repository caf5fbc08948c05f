"""Commands that look into the model, or change who answers and how."""

from __future__ import annotations

import dataclasses
from typing import Any

from llmctl.chat.speaker import load_speaker, load_tools
from llmctl.chat.talk import Talk
from llmctl.errors import UserError, nearest
from llmctl.recipe.source import parse
from llmctl.tools.toolbox import Toolbox
from llmctl.tools.web import WebSearch

SETTABLE = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens", "seed",
)  # fmt: skip


def set_(talk: Talk, rest: str) -> None:
    """Change how replies are sampled: `/set temperature=0.5`; without anything, show it."""
    for pair in rest.split():
        key, sign, value = pair.partition("=")
        if key not in SETTABLE or not sign:
            raise UserError(
                f"cannot set {pair!r}{nearest(key, SETTABLE)}", fix="/set KEY=VALUE; " + ", ".join(SETTABLE)
            )
        found, wanted = parse(value, f"/set {key}").data, getattr(talk.session.sampling, key)
        if isinstance(found, bool) or not isinstance(found, int if isinstance(wanted, int) else (int, float)):
            raise UserError(f"{key} is {value!r}; it should be a {'whole ' * isinstance(wanted, int)}number")
        changed: dict[str, Any] = {key: found}
        talk.session.sampling = dataclasses.replace(talk.session.sampling, **changed)
    talk.screen.note(" ".join(f"{k}={getattr(talk.session.sampling, k)}" for k in SETTABLE))


def model(talk: Talk, rest: str) -> None:
    """Go on with another model (`/model NAME`); without NAME, show which there are."""
    if not rest:
        for a in talk.workspace.artifacts("model"):
            here = "*" if a.name == talk.session.speaker.name else " "
            talk.screen.note(f"{here} {a.name} ({a.manifest.get('stage')})")
        return
    speaker = load_speaker(talk.workspace, talk.config.model_copy(update={"model": rest}))
    if speaker.chats != talk.session.speaker.chats:
        talk.session.clear()
        talk.chat = 0
    elif speaker.chats:
        speaker.tools = talk.session.speaker.tools  # as they have been switched
    talk.config = talk.config.model_copy(update={"model": rest})
    talk.session.speaker = speaker
    talk.screen.note(f"{speaker.name} {'answers' if speaker.chats else 'continues text'} from now on")


def tools(talk: Talk, rest: str) -> None:
    """Show the tools, or switch them: `/tools python off`, `/tools search NAME` (or URL), `/tools search off`."""
    which, _, value = rest.partition(" ")
    if rest and (which not in ("python", "search") or not value or (which == "python" and value not in ("on", "off"))):
        raise UserError(f"cannot do /tools {rest}", fix="/tools python on|off, /tools search NAME|off")
    if rest and not talk.session.speaker.chats:
        raise UserError("a base model calls no tools")
    box = talk.session.speaker.tools or Toolbox()
    if which == "python":
        box = Toolbox(box.search, value == "on")
    elif which == "search":
        config = talk.config.model_copy(update={"search": "" if value == "off" else value})
        found = load_tools(talk.workspace, config) if value != "off" else None
        box, talk.config = Toolbox(found.search if found else None, box.python), config
    talk.session.speaker.tools = box if box.python or box.search is not None else None
    where = box.search.template if isinstance(box.search, WebSearch) else talk.config.search
    python = "on" if box.python and not box.off() else "off"
    talk.screen.note(f"python {python}, search {f'in {where}' if box.search is not None else 'off'}")
    if box.off():
        talk.screen.note(box.off())


def tokens(talk: Talk, rest: str) -> None:
    """Show the conversation as token ids; those that training would train on are marked with *."""
    marked = talk.session.tokens()
    for token, text, trained in marked:
        talk.screen.note(f"{token:>7} {'*' if trained else ' '} {text!r}")
    talk.screen.note(f"{len(marked):,} tokens of {talk.session.speaker.context:,}")


def probs(talk: Talk, rest: str) -> None:
    """Show the likeliest first tokens of the last reply, or of one to `/probs TEXT`."""
    for text, token, p in talk.session.probabilities(rest):
        talk.screen.note(f"{p:7.2%} {'█' * round(p * 30):<30} {token:>7} {text!r}")


def thinking(talk: Talk, rest: str) -> None:
    """Show what stood between <think> and </think> in the last reply."""
    thoughts = getattr(talk.screen, "thoughts", "")
    talk.screen.note(thoughts.strip() or "it thought nothing aloud")
