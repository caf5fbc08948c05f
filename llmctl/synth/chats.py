"""Conversations of which a model writes both sides, as UltraChat (arXiv 2305.14233) has them.

One prompt plays the person, another the assistant, in turns; the first message is about a topic and a wish, or about a
passage of a corpus. First messages that are like an earlier one are dropped, as in self-instruct (arXiv 2212.10560).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from llmctl.console import Console
from llmctl.endpoint import ChatSampling, Conversation, Reply, open_writer
from llmctl.errors import UserError
from llmctl.synth.asking import Asking, seed_of
from llmctl.synth.config import SynthConfig
from llmctl.synth.made import Call, Made, aloud, unusable
from llmctl.synth.near import Near
from llmctl.synth.passages import passages, required, sample
from llmctl.synth.topics import TOPICS, WISHES
from llmctl.verify import held_out
from llmctl.workspace import Workspace

FIRST = """\
You play a person who writes to an assistant. Write your first message: {wish}, about {about}. Write as a person \
types, in one to three sentences. Write only the message."""
ABOUT = """\
Here is a text.

{passage}

You play a person who has just read it and writes to an assistant, who has it too. Write your first message: {wish}. \
One or two sentences, only the message."""
NEXT = """\
Here is a conversation between a person and an assistant.

{transcript}

You play the person. Write the person's next message: a further question, a doubt, or a wish for something to be \
changed. One or two sentences, only the message."""

_QUESTION_CHARS, _QUESTION_TOKENS = 1500, 160


@dataclass
class Talk:
    """One conversation as it grows. `why` says what is wrong with it; then it is not gone on with."""

    number: int
    opening: str
    turns: int
    passage: str = ""
    messages: list[dict[str, str]] = field(default_factory=list)
    why: str = ""

    @property
    def first(self) -> str:
        """The person's first message."""
        return self.messages[0]["content"] if self.messages else self.opening


def make(config: SynthConfig, workspace: Workspace, folder: Path, console: Console) -> Made:
    """The conversations; about a tenth of them, by the hash of the first message, are held out."""
    writer = open_writer(workspace, config.teacher, config.endpoint, "a teacher")
    asking = Asking("teacher", writer, folder, config.endpoint, console)
    talks = _openings(config, workspace)
    seen = Near(config.chat.alike)
    for turn in range(config.chat.turns[1]):
        _wave(config, asking, [t for t in talks if not t.why and t.turns > turn], turn, _ask_person, _hear_person)
        if turn == 0:
            _drop_alike(talks, seen)
        _wave(config, asking, [t for t in talks if not t.why and t.turns > turn], turn, _ask_assistant, _hear_assistant)
    made = _made(talks)
    prompts = {"first": ABOUT if config.corpus else FIRST, "next": NEXT, "system": config.chat.assistant}
    made.figures = {"asked": len(talks), "teacher": asking.report(), "prompts": prompts}
    if not made.train and not made.heldout:
        why = f"none of {len(talks):,} conversations can be used ({made.summary()})"
        raise UserError(why, fix="try another teacher")
    return made


def calls(config: SynthConfig, workspace: Workspace) -> list[Call]:
    """What would be asked, for the estimate: a later turn sends all that was said before it."""
    n, options = config.mix["chat"], config.chat
    turns = sum(options.turns) / 2
    before = (turns - 1) / 2 * (200 + options.max_new_tokens * 2)
    passage = 1000 if config.corpus else 0
    count = round(n * turns)
    return [
        Call("questions", count, len(NEXT) + before + passage / turns, _QUESTION_TOKENS),
        Call("answers", count, len(options.assistant) + 200 + before + passage, options.max_new_tokens),
    ]


def _openings(config: SynthConfig, workspace: Workspace) -> list[Talk]:
    rng, count = Random(f"chat/{config.seed}"), config.mix["chat"]
    texts: list[str] = [""] * count
    if config.corpus:
        source = workspace.resolve(config.corpus, ["corpus"], files=True)
        low, high = 200, 2000
        found = [
            text
            for side in (False, True)
            for text in sample(passages(source, low, high), count, config.seed, side, lambda text: text)
        ]
        texts = (rng.sample(required(found, source), len(found)) * (count // len(found) + 1))[:count]
    talks = []
    for i, text in enumerate(texts):
        about = rng.choice(config.chat.topics or TOPICS)
        wish, turns = rng.choice(WISHES), rng.randint(*config.chat.turns)
        opening = ABOUT.format(passage=text, wish=wish) if text else FIRST.format(about=about, wish=wish)
        talks.append(Talk(i, opening, turns, text))
    return talks


def _wave(
    config: SynthConfig,
    asking: Asking,
    talks: Sequence[Talk],
    turn: int,
    ask: Callable[[SynthConfig, Talk], Conversation],
    hear: Callable[[SynthConfig, Talk, Reply], None],
) -> None:
    """One further message in every conversation that goes on."""
    person = ask is _ask_person
    sampling = ChatSampling(
        max_tokens=_QUESTION_TOKENS if person else config.chat.max_new_tokens, temperature=config.chat.temperature
    )
    title = f"turn {turn + 1}, {'questions' if person else 'answers'}"
    seeds = [seed_of("chat", config.seed, t.number, turn, person) for t in talks]
    replies = asking.ask(title, [ask(config, t) for t in talks], sampling, seeds)
    for talk, reply in zip(talks, replies, strict=True):
        if reply.why:
            talk.why = f"no reply: {reply.why}"
        else:
            hear(config, talk, reply)


def _ask_person(config: SynthConfig, talk: Talk) -> Conversation:
    spoken = "\n\n".join(f"{m['role'].capitalize()}: {m['content']}" for m in talk.messages)
    text = NEXT.format(transcript=spoken) if talk.messages else talk.opening
    return [{"role": "user", "content": text}]


def _hear_person(config: SynthConfig, talk: Talk, reply: Reply) -> None:
    text = aloud(reply.text)
    for label in ("person:", "user:"):
        text = text[len(label) :].strip() if text.lower().startswith(label) else text
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    talk.why = unusable(text, _QUESTION_CHARS) or ("cut" if reply.finish == "length" else "")
    if talk.passage and not talk.messages:
        text = f"{talk.passage}\n\n{text}"
    talk.messages.append({"role": "user", "content": text})


def _ask_assistant(config: SynthConfig, talk: Talk) -> Conversation:
    told = [{"role": "system", "content": config.chat.assistant}] if config.chat.assistant else []
    return [*told, *talk.messages]


def _hear_assistant(config: SynthConfig, talk: Talk, reply: Reply) -> None:
    text = aloud(reply.text)
    banned = next((b for b in config.chat.banned if b.lower() in text.lower()), None)
    talk.why = unusable(text) or ("cut" if reply.finish == "length" else "") or (f"banned: {banned}" if banned else "")
    talk.messages.append({"role": "assistant", "content": text})


def _drop_alike(talks: Sequence[Talk], seen: Near) -> None:
    for talk in talks:
        if not talk.why and not seen.add(talk.first):
            talk.why = "like another"


def _made(talks: Sequence[Talk]) -> Made:
    made = Made()
    for talk in talks:
        if talk.why:
            made.reject(talk.why, talk.first, talk.messages[-1]["content"] if talk.messages else "")
            continue
        row = {"messages": talk.messages, "kind": "chat", "id": f"{seed_of(talk.first):08x}"}
        (made.heldout if held_out(talk.first) else made.train).append(row)
    return made
