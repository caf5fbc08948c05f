"""A dialogue: what is sent, what is noted, and what happens when the context is full."""

from __future__ import annotations

import pytest
from chat_tiny import speaker, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.chat.session import Session
from llmctl.chat.turn import content_of, words_of
from llmctl.errors import UserError
from llmctl.generate.sampling import Sampling
from llmctl.model.chat_format import render, render_prompt

CALL = [
    {"type": "text", "text": "Let me see. "},
    {"type": "python", "text": "1+1"},
    {"type": "output", "text": "2"},
    {"type": "text", "text": "The answer is 2."},
]


def session(replies: list, **options: object) -> Session:
    return Session(speaker(replies, **options), Sampling(max_new_tokens=20))  # type: ignore[arg-type]


def test_turns_are_noted_and_sent_as_training_renders_them() -> None:
    talk = session(["Hello.", CALL, "Bye."])
    talk.system = "Be brief."
    for said in ("Hi", "1+1?", "Bye"):
        list(talk.reply(said))
    assert [m["content"] for m in talk.messages] == ["Hi", "Hello.", "1+1?", CALL, "Bye", "Bye."]
    tok = talk.speaker.tokenizer
    assert talk.speaker.engine.prompts[2] == render_prompt(talk.dialogue()[:-1], tok)  # type: ignore[attr-defined]
    assert [(i, m) for i, _, m in talk.tokens()] == list(zip(*vars(render(talk.dialogue(), tok)).values(), strict=True))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["text", "python", "search", "output"]), st.text(max_size=8)), max_size=5))
def test_a_turn_read_back_renders_to_the_same_ids(parts: list[tuple[str, str]]) -> None:
    tok = tokenizer()
    content = [{"type": k, "text": t.encode("utf-8", "ignore").decode()} for k, t in parts]
    ids = render([{"role": "assistant", "content": content}], tok).ids
    back = content_of(ids[len(render_prompt([], tok)) :], tok)
    assert render([{"role": "assistant", "content": back}], tok).ids == ids


def test_the_words_of_a_turn_leave_out_calls_and_results() -> None:
    assert words_of(CALL) == "Let me see. The answer is 2."
    assert words_of(" hello\n") == "hello"


def test_look_alikes_of_special_tokens_stay_text() -> None:
    tok = tokenizer()
    text = "<|python_start|>1<|python_end|><|im_end|>"
    assert content_of(tok.encode(text), tok) == text


def test_an_interrupted_reply_keeps_what_was_said() -> None:
    talk = session(["Hello there."], stop_at=8)
    with pytest.raises(KeyboardInterrupt):
        list(talk.reply("Hi"))
    assert talk.messages[0]["content"] == "Hi"
    said = talk.messages[1]["content"]
    assert said and "Hello there.".startswith(said) and said != "Hello there."


def test_a_full_context_leaves_out_the_oldest_turns_and_says_so() -> None:
    talk = session(["a b c"] * 12, context=120)
    talk.system = "S"
    for n in range(12):
        list(talk.reply(f"question {n}"))
    assert talk.dropped > 0
    prompts = talk.speaker.engine.prompts  # type: ignore[attr-defined]
    assert all(len(p) <= 100 for p in prompts)
    assert prompts[-1] == render_prompt(
        [*talk.dialogue()[:1], *talk.messages[talk.dropped : -1]], talk.speaker.tokenizer
    )
    assert len(talk.messages) == 24


def test_what_can_never_fit_is_the_person_s_mistake_and_leaves_no_trace() -> None:
    talk = session([], context=60)
    with pytest.raises(UserError, match="context holds 60"):
        list(talk.reply("x y z " * 100))
    assert talk.messages == []


def test_undo_takes_back_one_exchange() -> None:
    talk = session(["one", "two"])
    list(talk.reply("a"))
    list(talk.reply("b"))
    assert talk.undo() == "b"
    assert [m["content"] for m in talk.messages] == ["a", "one"]
    talk.undo()
    assert talk.undo() is None and talk.messages == []


def test_a_base_model_goes_on_with_the_text() -> None:
    talk = session([" upon a time", " there was"], chats=False)
    list(talk.reply("Once"))
    list(talk.reply(""))
    assert talk.text == "Once upon a time there was"
    tok = talk.speaker.tokenizer
    assert talk.speaker.engine.prompts == [  # type: ignore[attr-defined]
        [tok.eos_id, *tok.encode("Once")],
        [tok.eos_id, *tok.encode("Once upon a time")],
    ]
