"""The prompt loop, typed at through a pipe."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from chat_tiny import Pretrain, put_model, speaker

from llmctl.chat import repl
from llmctl.chat.config import ChatConfig
from llmctl.chat.screen import Screen
from llmctl.console import Console
from llmctl.tools import toolbox, web
from llmctl.workspace import Workspace

CALL = [{"type": "python", "text": "1+1"}, {"type": "output", "text": "2"}, {"type": "text", "text": "It is 2."}]


def talk(
    lines: list[str], replies: list, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, **options: object
) -> None:
    put_model(workspace, "tiny")
    voice = speaker(replies, **options)  # type: ignore[arg-type]
    monkeypatch.setattr(repl, "load_speaker", lambda *_: voice)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
    repl.start(workspace, ChatConfig(model="tiny"), Console())


def test_replies_go_to_stdout_and_notes_to_stderr(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(["Hi", "", "1+1?", "/quit", "never read"], ["Hello.", CALL], workspace, monkeypatch)
    shown = capsys.readouterr()
    assert shown.out == "Hello.\n\n  [python] 1+1\n\n  = 2\nIt is 2.\n"
    assert "/help" in shown.err and "Hello" not in shown.err


def test_every_command_answers(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["/help", "/retry", "/save", "/bad", "/nonsense", "/hlep", "/set", "/set temperature=0", "/set top_k=x",
             "/set seed=3 top_k=5", "/set temperature=-1", "/set nothing=1", "a \\", "b", "/tokens", "/retry", "/undo",
             "/undo", "/system Be kind.", "c", "/new", "/quit"]  # fmt: skip
    talk(lines, ["one", "two", "three"], workspace, monkeypatch)
    shown = capsys.readouterr()
    assert shown.out == "one\ntwo\nthree\n"
    for wanted in (
        "nothing has been said yet", "there is no conversation yet", "did you mean 'help'", "temperature=0 ", "'x'",
        "top_k=5", "should be 0 or more", "cannot set 'nothing=1'", " '<|im_start|>'", "tokens of 500", "taken back",
    ):  # fmt: skip
        assert wanted in shown.err, wanted


def test_a_chat_is_saved_and_corrected_as_sft_reads_it(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["Hi", "/save mine", "/save mine", "/good", "/bad Hello, friend.", "/save other"]
    talk(lines, ["Hello."], workspace, monkeypatch)

    def rows(name: str) -> list[list[str]]:
        found = workspace.find(name, ["conversations"]).file("train.jsonl").read_text().splitlines()
        return [[m["content"] for m in json.loads(row)["messages"]] for row in found]

    assert rows("mine") == [["Hi", "Hello."]]
    assert rows("corrections") == [["Hi", "Hello, friend."]]  # who thinks better of an answer is taken at the last word
    assert rows("other") == [["Hi", "Hello, friend."]]
    assert workspace.find("mine", ["conversations"]).manifest["inputs"][0]["name"] == "tiny"


def test_ctrl_c_stops_a_reply_and_then_leaves(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = iter(["Hi", KeyboardInterrupt, "Again", KeyboardInterrupt, "never"])

    def ask(*_: object, **__: object) -> str:
        line = next(asked)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return str(line)

    monkeypatch.setattr(Screen, "ask", ask)
    talk([], ["Hello there.", "Hello there."], workspace, monkeypatch, stop_at=8)
    shown = capsys.readouterr()
    assert "stopped" in shown.err and shown.out
    assert next(asked) == "Again"  # the first Ctrl-C stopped the reply, the next one left


def test_one_ctrl_c_at_the_prompt_only_warns(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = iter([KeyboardInterrupt, "Hi", KeyboardInterrupt, KeyboardInterrupt, "never"])

    def ask(*_: object, **__: object) -> str:
        line = next(asked)
        if line is KeyboardInterrupt:
            raise KeyboardInterrupt
        return str(line)

    monkeypatch.setattr(Screen, "ask", ask)
    talk([], ["Hello."], workspace, monkeypatch)
    assert capsys.readouterr().out == "Hello.\n"
    assert next(asked) == "never"


def test_a_base_model_continues_and_goes_on_after_an_empty_line(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(["Once", "", "Twice"], [" upon", " a time", " a week"], workspace, monkeypatch, chats=False)
    assert capsys.readouterr().out == "Once upon\n a time\nTwice a week\n"


def test_a_real_model_talks_and_shows_its_probabilities(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_model(workspace, "base", Pretrain)
    for name in ("tiny", "base"):
        if name == "tiny":
            put_model(workspace, name)
        monkeypatch.setattr("sys.stdin", io.StringIO("/probs Hello\nHello\n/probs\n"))
        repl.start(workspace, ChatConfig(model=name, max_new_tokens=8, precision="fp32"), Console())
        assert capsys.readouterr().err.count("%") >= 20


def test_what_a_terminal_would_obey_is_not_passed_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(["Hi"], ["a\x1b]0;gone\x07\tb\r\nc"], workspace, monkeypatch)
    assert capsys.readouterr().out == "a\ufffd]0;gone\ufffd\tb\ufffd\nc\n"


def test_the_help_names_every_command(tmp_path: Path) -> None:
    from llmctl.chat.commands import COMMANDS

    assert all(command.__doc__ for command in COMMANDS.values())


def test_a_tool_that_stays_off_says_why(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(toolbox, "why_off", lambda: "user namespaces are refused")
    put_model(workspace, "tiny")
    monkeypatch.setattr("sys.stdin", io.StringIO("/tools\n/tools python off\n"))
    repl.start(workspace, ChatConfig(model="tiny", python=True), Console())
    banner, asked, why, switched = capsys.readouterr().err.splitlines()[1:]
    assert banner == why == "the python tool is off: user namespaces are refused"
    assert asked == switched == "python off, search off"


def test_the_web_is_searched_by_a_url_or_by_the_environment(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_model(workspace, "tiny")
    mine, set_ = "http://127.0.0.1:9/?q={query}", "http://127.0.0.1:8/?q={query}"
    monkeypatch.setenv(web.URL, set_)
    lines = "/tools\n/tools search off\n/tools python off\n/tools search http://127.0.0.1:9/\n/tools\n"
    for search in (mine, ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        repl.start(workspace, ChatConfig(model="tiny", search=search, log=False), Console())
        said = [line for line in capsys.readouterr().err.splitlines()[1:] if not line.startswith(" ")]
        assert said[0] == f"python on, search in {search or set_}"
        assert said[1] == "python on, search off" and said[2] == said[4] == "python off, search off"
        assert "is no search URL" in said[3]


def test_a_recorded_search_url_keeps_no_key(workspace: Workspace) -> None:
    put_model(workspace, "tiny")
    config = ChatConfig(model="tiny", search="https://search.example/find?key=secret&q={query}")
    assert [name for name, _, _ in config.inputs()] == ["tiny"]
    for fingerprint in (True, False):
        assert config.recorded(fingerprint)["search"] == "https://search.example/find"
