"""Streams of ids and text, and the coloured view."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.tokenize.show import counts, pieces, show
from llmctl.tokenize.stream import decode_stream, encode_stream, load_any_tokenizer, pipe
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


def piped(workspace: Workspace, value: str, given: bytes, json_mode: bool = False, **how: bool) -> bytes:
    sink = io.BytesIO()
    pipe(workspace, Console(json_mode=json_mode), value, io.BytesIO(given), sink, **how)
    return sink.getvalue()


def test_the_pipe_goes_both_ways(workspace: Workspace, small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path / "t")
    given = "hello world\n\nnaïve 🙂\nno newline at the end".encode()
    ids = piped(workspace, str(tmp_path / "t"), given)
    assert ids.count(b"\n") == 4
    assert piped(workspace, str(tmp_path / "t"), ids, decode=True) == given + b"\n"
    assert piped(workspace, str(tmp_path / "t"), b"\xff\xfe\n")
    assert "hello" in piped(workspace, str(tmp_path / "t"), given, show=True).decode()


def test_the_pipe_as_json(workspace: Workspace, small: Tokenizer, tmp_path: Path, capsys) -> None:
    small.save(tmp_path / "t")
    piped(workspace, str(tmp_path / "t"), b"hello\nworld\n", json_mode=True)
    assert json.loads(capsys.readouterr().out) == [small.encode("hello"), small.encode("world")]
    piped(workspace, str(tmp_path / "t"), b"hello", json_mode=True, show=True)
    found = json.loads(capsys.readouterr().out)
    assert [p["id"] for p in found["pieces"]] == small.encode("hello") and found["counts"]["bytes"] == 5


def test_without_a_name_the_only_tokenizer_is_meant(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="which tokenizer"):
        piped(workspace, "", b"hello")
