"""The terminal a person sits at: folding, Markdown in blocks, and the whole REPL typed at through a pty."""

from __future__ import annotations

import io
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from chat_tiny import put_model
from hypothesis import given
from hypothesis import strategies as st

from llmctl.workspace import Workspace

pytest.importorskip("prompt_toolkit")

from rich.console import Console as Rich

from llmctl.chat.marked import marked
from llmctl.chat.terminal import Fold, _Block, block_end

THOUGHT = "Well. <think>2 and 2\nis 4</think>\n\nIt is <b>4</b>, not <thi."


@given(st.lists(st.integers(0, len(THOUGHT)), max_size=8))
def test_thoughts_are_folded_however_the_text_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(THOUGHT)]
    fold, said, thought = Fold(), "", ""
    for part in [THOUGHT[a:b] for a, b in pairwise(edges)]:
        for text, within in fold.push(part):
            said, thought = (said, thought + text) if within else (said + text, thought)
    said += "".join(text for text, _ in fold.rest())
    assert thought == "2 and 2\nis 4"
    assert said.replace("\n", "") == "Well. It is <b>4</b>, not <thi."


def test_a_thought_that_never_ends_is_still_a_thought() -> None:
    fold = Fold()
    assert list(fold.push("<think>on and </thi")) == [("on and ", True)]
    assert list(fold.rest()) == [("</thi", True)]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("one\n\ntwo", "one\n\n"),
        ("one\ntwo", None),
        ("```py\na\n\nb\n```\n\nend", "```py\na\n\nb\n```\n\n"),
        ("```py\na\n\nb", None),
        ("~~~\n```\n\n~~~\n\nx", "~~~\n```\n\n~~~\n\n"),
        ("\n\none\n\n", "\n\none\n\n"),
        ("one\n ", None),
    ],
)
def test_a_block_ends_at_an_empty_line_outside_of_code(text: str, first: str | None) -> None:
    end = block_end(text)
    assert (None if end is None else text[:end]) == first


def test_markdown_is_drawn_whatever_way_it_arrives() -> None:
    text = "# Title\n\nSome *words*.\n\n```py\na = 1\n\nb = 2\n```\n\n- one\n- two\n"
    shown = []
    for size in (1, 7, len(text)):
        out = io.StringIO()
        block = _Block(Rich(file=out, width=60, force_terminal=False))
        for at in range(0, len(text), size):
            block.push(text[at : at + size])
        block.close()
        shown.append(out.getvalue())
    assert "*words*" not in shown[0] and "```" not in shown[0] and "words" in shown[0] and "b = 2" in shown[0]
    assert shown[0].split() == shown[1].split() == shown[2].split()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no pty")
def test_the_repl_through_a_pty(workspace: Workspace, tmp_path: Path) -> None:
    pexpect = pytest.importorskip("pexpect")
    put_model(workspace, "tiny")
    put_model(workspace, "judge", reward=True)
    root = str(workspace.root)
    command = ["-m", "llmctl.cli.main", "chat", "tiny", "-w", root, "-s", "max_new_tokens=12", "-s", "precision=fp32"]
    env = {**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", "OMP_NUM_THREADS": "1"}
    child = pexpect.spawn(sys.executable, command, env=env, timeout=30, dimensions=(30, 100), encoding="utf-8")
    try:
        child.expect("leaves")
        child.send("Hello\r")
        child.expect("tokens/s")
        child.expect("of 96 context")
        child.send("/hlep\r")
        child.expect("did you mean 'help'")
        child.send("/mod\t")  # completed
        child.expect("/model")
        child.send("\r")
        child.expect(r"\* tiny \(sft\)")
        child.send("first\x1b\rsecond\r")  # Alt-Enter begins a line
        child.expect("tokens/s")
        child.send("/tokens\r")
        child.expect(r"'<\|im_start\|>'")
        child.expect("tokens of 96")
        child.send("/score judge\r")
        child.expect("by judge")
        child.send("/bad")
        child.send("\r")
        child.expect("right answer>")
        child.send("\x01\x0bHello, friend.\r")  # Ctrl-A, Ctrl-K: the old answer is there to be edited
        child.expect("kept in conversations/corrections")
        child.send("\x12Hel")  # Ctrl-R finds what was typed
        child.expect("lo, friend")
        child.send("\x07")  # ends the search
        time.sleep(0.3)
        child.send("\x03")
        child.expect("Ctrl-C again")
        child.send("\x03")
        child.expect(pexpect.EOF)
    finally:
        child.close()
    from llmctl.chat.log import Log
    from llmctl.formats.conversations import read_conversations

    log = Log(workspace)
    dialogue = log.dialogue(1)
    log.close()
    assert [m["content"] for m in dialogue][0::2] == ["Hello", "first\nsecond"]
    rows = read_conversations(workspace.find("corrections").path).rows
    assert rows[0]["messages"][-1]["content"] == "Hello, friend."
    assert "Hello" in (workspace.root / "chat_history").read_text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("use List<int> and <answer>4</answer>", "use List<int> and <answer>4</answer>"),
        ("<div>\nhello\n</div>\n\nmore", "<div> hello </div> more"),
        ("2*3*4 = 24, *so* it is", "2*3*4 = 24, so it is"),
        ("`2*3*4`\n\n    a*b*c 1*2*3", "2*3*4 a*b*c 1*2*3"),
        ("[here](http://elsewhere.example)", "here (http://elsewhere.example)"),
    ],
)
def test_markdown_loses_nothing_of_an_answer(text: str, shown: str) -> None:
    out = io.StringIO()
    Rich(file=out, width=70, force_terminal=False).print(marked(text))
    assert " ".join(out.getvalue().split()) == shown


def test_a_line_break_of_the_model_stays_one() -> None:
    out = io.StringIO()
    Rich(file=out, width=40, force_terminal=False).print(marked("1+2=3\n3+4=7\n\n- a\n  b\n- c"))
    assert [line.strip() for line in out.getvalue().splitlines() if line.strip()] == [
        "1+2=3", "3+4=7", "• a", "b", "• c",
    ]  # fmt: skip


EARLY = """
import sys, time
from llmctl.chat.terminal import Terminal
from llmctl.console import Console
t = Terminal(Console(), None, False)
print("ready", flush=True)
time.sleep(1)
print("asking", flush=True)
print("got", repr(t.ask()), flush=True)
print("got", repr(t.ask()), flush=True)
t.close()
print("given back", flush=True)
time.sleep(5)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no pty")
def test_what_is_typed_during_a_reply_waits_unseen_for_the_prompt() -> None:
    pexpect = pytest.importorskip("pexpect")
    env = {**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
    child = pexpect.spawn(sys.executable, ["-c", EARLY], env=env, timeout=30, encoding="utf-8")
    try:
        child.expect("ready")
        child.send("one\rtwo\r")
        child.expect("asking")
        assert "one" not in child.before
        child.expect("got 'one'")
        child.expect("got 'two'")
        child.expect("given back")
        assert child.getecho()
    finally:
        child.close()
