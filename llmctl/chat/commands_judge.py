"""Commands that judge answers: what is kept by them is what the next training learns from."""

from __future__ import annotations

import random
from typing import Any

from llmctl.chat import feedback
from llmctl.chat.log import Turn
from llmctl.chat.reward import Judge
from llmctl.chat.session import Session
from llmctl.chat.several import said as words
from llmctl.chat.several import several as samples
from llmctl.chat.speaker import Speaker, load_speaker
from llmctl.chat.talk import Talk
from llmctl.chat.turn import words_of
from llmctl.errors import UserError

_TRIES = 4  # for an answer that differs from the first


def good(talk: Talk, rest: str) -> None:
    """Keep the conversation as a good example, in the conversations `corrections`."""
    _dialogue(talk)
    _keep_conversation(talk)


def bad(talk: Talk, rest: str) -> None:
    """Put what should have been said in the place of the last reply (`/bad TEXT`) and keep it in `corrections`."""
    last = _dialogue(talk)[-1]
    if not rest and talk.screen.typed:
        rest = talk.screen.ask("right answer> ", words_of(last["content"])).strip()
    if not rest:
        raise UserError("say what the right answer is", fix="/bad TEXT")
    talk.needs_log()
    talk.session.messages[-1] = {"role": "assistant", "content": rest}
    talk.changed()
    _keep_conversation(talk)


def compare(talk: Talk, rest: str) -> None:
    """Two answers to the last question, of this model or of one other (`/compare NAME`): the choice is kept."""
    talk.needs_log()
    asked = _dialogue(talk)[:-1]
    mine = talk.session.speaker
    other = _other(talk, rest) if rest else mine
    pair = _two(talk, mine, other)
    random.shuffle(pair)  # who stands first must say nothing of who is who
    texts = [words(*one) for one in pair]
    if texts[0].strip() == texts[1].strip():
        raise UserError(f"both answers are the same: {texts[0].strip()}", fix="a higher /set temperature=... helps")
    for name, text in zip("AB", texts, strict=True):
        talk.screen.note(f"[{name}] {text or '(no words)'}")
    choice = talk.screen.ask("which is better? A, B, = (alike), Enter for neither: ").strip().upper()
    ranking = {"A": [0, 1], "B": [1, 0], "=": [0, 0]}.get(choice)
    if ranking is None:
        talk.screen.note("nothing kept")
        return
    _keep(talk, "comparisons", talk.config.choices, feedback.comparison(asked, texts, ranking))
    if choice != "=":
        speaker, turn = pair["AB".index(choice)]
        talk.session.messages[-1] = {"role": "assistant", "content": turn.content}
        talk.changed()
        talk.screen.note(f"{choice} was {speaker.name}'s; the conversation goes on with it")


def score(talk: Talk, rest: str) -> None:
    """What a reward model thinks of the last answer (`/score NAME`; without NAME, the one used last)."""
    dialogue = _dialogue(talk)
    if rest and (talk.judge is None or talk.judge.name != rest):
        talk.judge = Judge(talk.workspace, rest)
    if talk.judge is None:
        raise UserError("say which reward model", fix="/score NAME, or start with -s reward=NAME")
    talk.screen.note(f"{talk.judge.score([dialogue])[0]:+.3f} by {talk.judge.name}")


def several(talk: Talk, rest: str) -> None:
    """Make so many answers to each question (`/n 4`) and take the best: by the reward model, else by your choice."""
    if rest and not (rest.isdigit() and 1 <= int(rest) <= 64):
        raise UserError(f"{rest!r} is no number from 1 to 64", fix="/n 4")
    talk.best = int(rest) if rest else talk.best
    by = f"the best by {talk.judge.name} is taken" if talk.judge else "you choose (/score NAME lets a reward model)"
    talk.screen.note("one answer a question" if talk.best == 1 else f"{talk.best} answers a question; {by}")


def _dialogue(talk: Talk) -> list[dict[str, Any]]:
    if not talk.session.messages:
        raise UserError("there is no conversation yet")
    return talk.session.dialogue()


def _other(talk: Talk, name: str) -> Speaker:
    if name not in talk.others:
        speaker = load_speaker(talk.workspace, talk.config.model_copy(update={"model": name}))
        if not speaker.chats:
            raise UserError(f"{name} is a base model and does not answer")
        talk.others[name] = speaker
    return talk.others[name]


def _two(talk: Talk, mine: Speaker, other: Speaker) -> list[tuple[Speaker, Turn]]:
    """An answer of each, drawn again some times where both say the same."""
    first, tries = _sample(talk, mine), _TRIES if talk.session.sampling.temperature else 1
    for _ in range(tries):
        second = _sample(talk, other)
        if words(other, second).strip() != words(mine, first).strip():
            break
    return [(mine, first), (other, second)]


def _sample(talk: Talk, speaker: Speaker) -> Turn:
    now = talk.session
    now.replies += 1
    aside = Session(speaker, now.sampling, now.system, now.messages[:-1])
    return samples(speaker, aside.prompt(), now.sampling, 1, now.replies - 1)[0]


def _keep_conversation(talk: Talk) -> None:
    # One row a turn of a chat: who thinks better of it replaces it.
    key = f"chat {talk.chat} turn {len(talk.session.messages)}" if talk.chat else ""
    _keep(talk, "conversations", talk.config.corrections, feedback.conversation(talk.session.dialogue()), key)


def _keep(talk: Talk, kind: str, name: str, row: dict[str, Any], key: str = "") -> None:
    log = talk.needs_log()
    feedback.keep(log, kind, name, row, key)
    made = feedback.publish(talk.workspace, talk.config, log, kind, name)
    assert made is not None
    talk.screen.note(f"kept in {kind}/{name} ({made.figures[kind]} so far)")
