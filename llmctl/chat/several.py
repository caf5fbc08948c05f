"""Several answers to one prompt, for /n, /compare and --rank."""

from __future__ import annotations

from llmctl.chat.log import Turn
from llmctl.chat.speaker import Speaker
from llmctl.chat.turn import content_of, words_of
from llmctl.generate.continuous import Request
from llmctl.generate.sampling import Sampling


def several(speaker: Speaker, prompt: list[int], sampling: Sampling, count: int, first: int = 0) -> list[Turn]:
    """The samples `first`, `first + 1`, ... of `prompt` (token ids), `count` of them, made in one batch."""
    requests = [Request(prompt, sampling, first + k, speaker.tools is not None) for k in range(count)]
    with speaker.engine.continuous() as batch:
        batch.join(requests)
        while len(batch):
            back = [r for r in batch.step() if r.call]
            for request in back:
                assert request.call is not None and speaker.tools is not None
                batch.answer(request, speaker.tools(*request.call))
            batch.join([r for r in back if not r.finish])
    return [_turn(speaker, r) for r in requests]


def said(speaker: Speaker, turn: Turn) -> str:
    """The words of a turn."""
    return words_of(turn.content) if speaker.chats else str(turn.content)


def _turn(speaker: Speaker, request: Request) -> Turn:
    text = "".join(p.text for p in request.pieces)
    cut = text if request.sampling.stop_strings else None
    content = content_of(request.ids, speaker.tokenizer, cut) if speaker.chats else text
    return Turn(request.prompt, request.sampling, request.sample, request.ids, content, request.finish, request.tools)
