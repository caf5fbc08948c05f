"""One dialogue with a model, or one text that a base model goes on with: what was said, and what is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmctl.chat.log import Turn
from llmctl.chat.several import several
from llmctl.chat.speaker import Speaker
from llmctl.chat.turn import content_of
from llmctl.errors import UserError
from llmctl.generate.control import stop_ids
from llmctl.generate.engine import Piece
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import render, render_prompt


@dataclass
class Session:
    """`messages` is the dialogue (chat models), `text` what stands so far (base models)."""

    speaker: Speaker
    sampling: Sampling
    system: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    replies: int = 0
    """How many were made: each has noise of its own, so that asking again gives another answer."""
    dropped: int = 0
    """Turns that were left out of the last prompt because the context is full."""
    made: Turn | None = None
    """The last reply, with what made it."""

    def reply(self, said: str) -> Iterator[Piece]:
        """The model's reply to `said`, token by token, noted when it ends; also when the caller stops in its midst."""
        before = (list(self.messages), self.text)
        if self.speaker.chats:
            self.messages.append({"role": "user", "content": said})
        else:
            self.text += said
        try:
            prompt = self.prompt()
        except UserError:
            self.messages, self.text = before
            raise
        self.replies += 1
        ids: list[int] = []
        shown, finish = "", "stopped"
        tools, sampling = self.speaker.tools, self.sampling
        try:
            for piece in self.speaker.engine.pieces(prompt, sampling, tools, sample=self.replies - 1):
                ids.append(piece.id)
                shown += piece.text
                yield piece
            room = min(sampling.max_new_tokens, self.speaker.context - len(prompt))
            finish = "stop" if len(ids) < room or ids[-1] in stop_ids(self.speaker.tokenizer, sampling) else "length"
        finally:
            self._note(ids, shown)
            content = self.messages[-1]["content"] if self.speaker.chats else shown
            self.made = Turn(prompt, sampling, self.replies - 1, ids, content, finish, tools is not None)

    def several(self, said: str, count: int) -> list[Turn]:
        """`count` replies to `said`, of which `take` takes one up; until then nothing is noted."""
        aside = Session(self.speaker, self.sampling, self.system, list(self.messages), self.text)
        if self.speaker.chats:
            aside.messages.append({"role": "user", "content": said})
        else:
            aside.text += said
        found = several(self.speaker, aside.prompt(), self.sampling, count, self.replies)
        self.dropped = aside.dropped
        self.replies += count
        return found

    def take(self, turn: Turn, said: str = "") -> None:
        """Go on with `turn`, one of `several` replies to `said`."""
        if self.speaker.chats:
            self.messages += [{"role": "user", "content": said}] if said else []
            self.messages.append({"role": "assistant", "content": turn.content})
        else:
            self.text += said + str(turn.content)
        self.made = turn

    def prompt(self) -> list[int]:
        """The token ids that are sent. The oldest turns are left out where the context is too short for all.

        UserError where not even the last one fits.
        """
        tokenizer, room = self.speaker.tokenizer, self._room()
        if not self.speaker.chats:
            ids = [tokenizer.bos_id, *tokenizer.encode(self.text)]  # what stands before every document in training
            self.dropped = int(len(ids) > room)
            return ids[-room:]
        for at in range(0, max(1, len(self.messages)), 2):
            self.dropped = at
            ids = render_prompt([*self._system(), *self.messages[at:]], tokenizer)
            if len(ids) <= room:
                return ids
        raise UserError(
            f"that is {len(ids):,} tokens and there is room for {room:,}: "
            f"the model's context holds {self.speaker.context:,}, its reply included",
            fix="say it in fewer words",
        )

    def tokens(self) -> list[tuple[int, str, bool]]:
        """(id, text, trained on) of the whole dialogue as training would see it."""
        tokenizer = self.speaker.tokenizer
        if not self.speaker.chats:
            ids, mask = [tokenizer.bos_id, *tokenizer.encode(self.text)], None
        else:
            rendered = render([*self._system(), *self.messages], tokenizer)
            ids, mask = rendered.ids, rendered.mask
        return [(i, tokenizer.decode([i]), mask is None or mask[n]) for n, i in enumerate(ids)]

    def probabilities(self, said: str, k: int = 10) -> list[tuple[str, int, float]]:
        """The likeliest first tokens of the reply to `said`; of the last reply where `said` is empty."""
        aside = Session(self.speaker, self.sampling, self.system, list(self.messages), self.text)
        if said and self.speaker.chats:
            aside.messages.append({"role": "user", "content": said})
        elif said:
            aside.text += said
        elif self.speaker.chats:
            aside.messages = self.messages[:-1]
        if self.speaker.chats and not aside.messages:
            raise UserError("nothing has been said yet", fix="/probs TEXT shows how a reply to TEXT would begin")
        return self.speaker.engine.next_token_probabilities(aside.prompt(), k)

    def undo(self) -> str | None:
        """Take the last exchange back. Returns what was said, or None where there is none."""
        if not self.messages:
            self.text = ""
            return None
        said = self.messages[-2]["content"]
        del self.messages[-2:]
        return str(said)

    def clear(self) -> None:
        """Begin anew."""
        self.messages, self.text, self.dropped, self.made = [], "", 0, None

    def dialogue(self) -> list[dict[str, Any]]:
        """The messages with the system message, as conversations hold them."""
        return [*self._system(), *self.messages]

    def standing(self) -> list[dict[str, Any]]:
        """What the log keeps of it: the dialogue, or a base model's text."""
        return self.dialogue() if self.speaker.chats else [{"role": "document", "content": self.text}]

    def restore(self, standing: list[dict[str, Any]]) -> None:
        """Go on from what `standing` gave. UserError where a base model's text meets a chat model, or the reverse."""
        if standing and (standing[0]["role"] == "document") == self.speaker.chats:
            raise UserError(f"{self.speaker.name} cannot go on with it: one is a dialogue, the other a text")
        self.clear()
        if not self.speaker.chats:
            self.text = "".join(m["content"] for m in standing)
            return
        rest = [dict(m) for m in standing]
        self.system = rest.pop(0)["content"] if rest and rest[0]["role"] == "system" else ""
        while rest and rest[-1]["role"] != "assistant":
            rest.pop()
        self.messages = rest

    def _note(self, ids: list[int], shown: str) -> None:
        if self.speaker.chats:
            cut = shown if self.sampling.stop_strings else None
            self.messages.append({"role": "assistant", "content": content_of(ids, self.speaker.tokenizer, cut)})
        else:
            self.text += shown

    def _room(self) -> int:
        """Tokens that a prompt may have: the reply keeps what it may need, but at most half of the context."""
        context = self.speaker.context
        return max(1, context - min(self.sampling.max_new_tokens, context // 2))

    def _system(self) -> list[dict[str, Any]]:
        return [{"role": "system", "content": self.system}] if self.system and self.speaker.chats else []
