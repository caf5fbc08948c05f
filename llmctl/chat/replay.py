"""A chat of the log made again, token for token."""

from __future__ import annotations

from itertools import islice
from typing import Any

from llmctl.chat.config import ChatConfig
from llmctl.chat.log import Log
from llmctl.chat.several import said
from llmctl.chat.speaker import load_speaker
from llmctl.errors import UserError
from llmctl.generate.engine import Engine
from llmctl.workspace import Workspace


def replay(workspace: Workspace, config: ChatConfig, chat: int) -> list[dict[str, Any]]:
    """Each reply of `chat` made anew: {"text": as it was, "same": whether its tokens came out again}.

    UserError where another model gave them. Tokens that were made in a batch of another size may differ by rounding,
    about one in 100,000; those of tools, if what the tools read has changed.
    """
    log = Log(workspace)
    try:
        turns = log.turns(chat)
    finally:
        log.close()
    speaker = load_speaker(workspace, config)
    engines = {speaker.engine.dtype: speaker.engine}
    found = []
    for turn in turns:
        if turn.digest != speaker.digest:
            raise UserError(
                f"{turn.model} gave these answers, and {speaker.name} is not what that was then", f"chat {chat}",
                "give the model by name, or restore it",
            )  # fmt: skip
        dtype = next((d for d in engines if str(d) == turn.precision), None)
        if dtype is None:
            kind = "bf16" if turn.precision.endswith("bfloat16") else "fp32"
            engine = Engine(speaker.engine.model, speaker.tokenizer, kind)
            engines[engine.dtype] = engine
            dtype = engine.dtype
        pieces = engines[dtype].pieces(turn.prompt, turn.sampling, speaker.tools if turn.tools else None, turn.sample)
        ids = [p.id for p in islice(pieces, len(turn.ids))]
        found.append({"text": said(speaker, turn), "same": ids == turn.ids})
    return found
