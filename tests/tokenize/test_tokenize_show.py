"""Streams of ids and text, and the coloured view."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.model.tokenizer import Tokenizer, train_tokenizer
from llmctl.tokenize.page import as_page
from llmctl.tokenize.show import bits, counts, pieces, readable, show
from llmctl.tokenize.stream import How, decode_stream, encode_stream, load_any_tokenizer, pipe
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
    assert "hello" in shown and "⏎\n" in shown and "<0xF0>" in shown
    assert f"tokens: {len(small.encode(text)):,}," in shown
    assert pieces("hello", small, special=True)[0].id == small.encode("hello")[0]


@pytest.mark.parametrize(
    ("piece", "reads"),
    [
        (b" hello", " hello"),
        (b"\xe2", "<0xE2>"),
        (b" \xf0\x9f", " <0xF0><0x9F>"),
        ("é".encode() + b"\x99\x82a", "é<0x99><0x82>a"),
        (b"\x1b[31m\r\n\t", "<0x1B>[31m<0x0D>\n\t"),
        ("\x85👩‍👧".encode(), "<0xC2><0x85>👩‍👧"),
        (b"<0xE2>", "<0xE2>"),
    ],
)
def test_bytes_that_are_no_character_can_be_read(piece: bytes, reads: str) -> None:
    assert readable(piece) == reads


def test_the_same_text_as_bits_and_bytes() -> None:
    assert bits("hé".encode()) == "01101000 11000011 10101001"


def test_the_known_answer_of_the_views(data: Path, workspace: Workspace) -> None:
    gpt2 = load_any_tokenizer(workspace, str(data / "tokenizers/gpt2"))
    shown = show("hello deep seek", gpt2).plain
    for line in (
        "text: 15 characters\nhello deep seek",
        "bits: 120, each one of 2\n01101000 01100101 01101100 01101100 01101111 00100000 01100100 01100101 ...",
        "bytes: 15, each one of 256\n104 101 108 108 111 32 100 101 101 112 32 115 101 101 107",
        "tokens: 3, each one of 50,257, 5.00 bytes a token (47 bits)\n31373 2769 5380",
    ):
        assert line in shown


def test_special_tokens_are_read_where_asked_and_look_different(small: Tokenizer) -> None:
    text = "hello<|im_end|>"
    assert not any(p.special for p in pieces(text, small))
    last = pieces(text, small, special=True)[-1]
    assert last.special and last.id == small.specials["<|im_end|>"]
    styles = [span.style for span in show(text, small, special=True).spans]
    assert "bold white on black" in styles and "bold white on black" not in [s.style for s in show(text, small).spans]
    assert 'class="special"' in as_page(text, small, "small", special=True)
    assert 'class="special"' not in as_page(text, small, "small")


class Spans(HTMLParser):
    """The texts of the page's coloured pieces, and everything it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.views: list[list[str]] = []
        self.loads: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loads += [tag] if tag in ("script", "link", "img", "iframe") or "src" in found or "href" in found else []
        if tag == "p" and (found.get("class") or "").startswith("cut"):
            self.views.append([])
        self.inside = tag == "span"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.views[-1].append(data)
            self.inside = False


def test_the_page_holds_all_of_the_text_and_loads_nothing(small: Tokenizer) -> None:
    text = "hello <b>&amp;</b>\n <script>alert(1)</script> naïve 👩‍👧 " * 20
    page = as_page(text, small, "small <i>")
    read = Spans(page)
    assert not read.loads and "://" not in page and "@import" not in page
    ids = small.encode(text)
    assert read.views[1] == list(map(str, ids))
    assert read.views[0] == [p.reads.replace("\n", "⏎\n") for p in pieces(text, small)]
    assert " ".join(map(str, text.encode())) in page and bits(text.encode()) in page


def test_a_hub_name_is_told_what_to_do(workspace: Workspace) -> None:
    with pytest.raises(UserError, match="hub"):
        load_any_tokenizer(workspace, "hf:openai-community/gpt2")


def piped(workspace: Workspace, value: str, given: bytes, json_mode: bool = False, **how) -> bytes:
    sink = io.BytesIO()
    pipe(workspace, Console(json_mode=json_mode), value, io.BytesIO(given), sink, How(**how))
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


def test_a_page_is_written_and_not_written_over(workspace: Workspace, small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path / "t")
    page = tmp_path / "page.html"
    assert piped(workspace, str(tmp_path / "t"), b"hello <|im_end|>\n", html=page, special=True) == b""
    assert 'class="special"' in page.read_text()
    with pytest.raises(UserError, match="exists already"):
        piped(workspace, str(tmp_path / "t"), b"other", html=page)
    piped(workspace, str(tmp_path / "t"), b"other", html=page, overwrite=True)
    assert "hello" not in page.read_text()


def test_special_tokens_of_a_stream_are_text_unless_asked(
    workspace: Workspace, small: Tokenizer, tmp_path: Path
) -> None:
    small.save(tmp_path / "t")
    end = str(small.specials["<|im_end|>"]).encode()
    assert piped(workspace, str(tmp_path / "t"), b"<|im_end|>", special=True) == end + b"\n"
    assert end not in piped(workspace, str(tmp_path / "t"), b"<|im_end|>").split()


@pytest.mark.parametrize("name", ["gpt2", "gpt2/vocab.bpe", "cl100k_base.tiktoken", "../model/stories260K/tok512.bin"])
def test_published_tokenizers_can_be_looked_through(data: Path, workspace: Workspace, name: str) -> None:
    tokenizer = load_any_tokenizer(workspace, str(data / "tokenizers" / name))
    assert "".join(p.reads for p in pieces("hello world", tokenizer)).strip() == "hello world"
