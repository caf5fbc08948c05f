"""Streams of ids and text, and the coloured view."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.errors import UserError
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.tokenize.show import counts, decode_stream, encode_stream, load_any_tokenizer, pieces, show
from llmctl.workspace import Workspace


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_tokenizer(["hello deep seek, hello world"], 290)


def test_the_known_answer_as_a_stream(data: Path, workspace: Workspace) -> None:
    gpt2 = load_any_tokenizer(workspace, str(data / "tokenizers/gpt2"))
    assert list(encode_stream(["hello deep seek\n"], gpt2)) == ["31373 2769 5380"]
    assert list(decode_stream(["31373 2769 5380\n", "[31373, 2769]"], gpt2)) == ["hello deep seek", "hello deep"]


def test_a_stream_comes_back(small: Tokenizer) -> None:
    lines = ["hello world", "", "  naïve 🙂\t<|im_end|>", "123"]
    assert list(decode_stream(encode_stream([f"{t}\n" for t in lines], small), small)) == lines


@pytest.mark.parametrize("bad", ["seven", "-1", "1.5", "999999", "²"])
def test_what_is_no_id_is_named(small: Tokenizer, bad: str) -> None:
    with pytest.raises(UserError, match=r"line 2.*no token id"):
        list(decode_stream(["1 2", f"3 {bad}"], small))


def test_a_text_in_everything_it_can_be_counted_in(small: Tokenizer) -> None:
    text = "naïve 🙂"
    found = counts(text, small)
    assert (found["characters"], found["bytes"], found["bits"]) == (7, 11, 88)
    assert found["tokens"] == len(small.encode(text))


def test_the_view_shows_every_piece_and_id(small: Tokenizer) -> None:
    text = "hello 🙂\nworld <|im_end|>"
    shown = show(text, small).plain
    assert all(str(i) in shown for i in small.encode(text))
    assert "hello" in shown and "⏎\n" in shown and "\\xf0" in shown
    assert f"{len(small.encode(text)):,} tokens" in shown
    assert pieces("hello", small, special=True)[0][0] == small.encode("hello")[0]


def test_a_hub_name_is_told_what_to_do(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="hub"):
        load_any_tokenizer(workspace, "hf:openai-community/gpt2")
