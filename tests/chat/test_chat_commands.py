"""The commands of the REPL on real tiny models: what they change, what they keep, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from chat_tiny import Pretrain, put_model, speaker

from llmctl.chat import commands_judge, labelling
from llmctl.chat.commands import COMMANDS, completions, perform
from llmctl.chat.config import ChatConfig
from llmctl.chat.labelling import ranks, read_prompts
from llmctl.chat.log import Log, Turn
from llmctl.chat.oneshot import answer
from llmctl.chat.replay import replay
from llmctl.chat.screen import Screen
from llmctl.chat.session import Session
from llmctl.chat.speaker import load_speaker, sampling_of
from llmctl.chat.talk import Talk
from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.formats.comparisons import read_comparisons
from llmctl.formats.conversations import read_conversations
from llmctl.workspace import Workspace


class Scripted(Screen):
    """A person who types what a test says; what is shown is kept."""

    typed = True

    def __init__(self, lines: list[str]) -> None:
        super().__init__(Console(quiet=True))
        self.lines, self.shown, self.said = lines, [], ""

    def note(self, text: str) -> None:
        self.shown.append(text)

    def ask(self, prompt: str = "> ", default: str = "", completions: Any = None) -> str:
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)

    def say(self, text: str, quiet: bool = False, markdown: bool = False) -> None:
        self.said += text

    def end(self) -> None:
        self.said += "\n"


def config(**settings: object) -> ChatConfig:
    return ChatConfig.model_validate(
        {"model": "tiny", "max_new_tokens": 8, "precision": "fp32", "temperature": 1, **settings}
    )


@contextmanager
def talking(workspace: Workspace, lines: list[str] | None = None, **settings: object) -> Iterator[Talk]:
    for name in ("tiny", "other"):
        put_model(workspace, name)
    voice, log = load_speaker(workspace, config(**settings)), Log(workspace)
    yield Talk(
        workspace, config(**settings), Session(voice, sampling_of(config(**settings))), Scripted(lines or []), log
    )
    log.close()


def test_every_reply_is_logged_and_replays_to_the_same_tokens(workspace: Workspace) -> None:
    with talking(workspace) as talk:
        talk.reply("Hello")
        perform(talk, "/set temperature=0.5 top_k=9 seed=4")
        talk.reply("What is 12?")
        perform(talk, "/n 3")
        talk.reply("And?")
        chat, messages = talk.chat, talk.session.dialogue()
        assert talk.log is not None and talk.log.dialogue(chat) == messages
        turns = talk.log.turns(chat)
        assert [t.sample for t in turns[:2]] == [0, 1] and turns[1].sampling.top_k == 9
    found = replay(workspace, config(), chat)
    assert [t["same"] for t in found] == [True] * 3
    assert [t["text"] for t in found] == [m["content"].strip() for m in messages if m["role"] == "assistant"]
    put_model(workspace, "judge", reward=True)
    with pytest.raises(UserError, match="no chat 99"):
        replay(workspace, config(), 99)


def test_a_replay_tells_tokens_that_differ_and_a_model_that_is_another(workspace: Workspace) -> None:
    with talking(workspace) as talk:
        talk.reply("Hello")
        assert talk.log is not None
        talk.log._db.execute("UPDATE turns SET ids = '[1, 2, 3]'")
        assert [t["same"] for t in replay(workspace, config(), talk.chat)] == [False]
        talk.log._db.execute("UPDATE turns SET digest = 'gone'")
        with pytest.raises(UserError, match="not what that was then"):
            replay(workspace, config(), talk.chat)


def test_one_shot_answers_are_logged_too(workspace: Workspace) -> None:
    put_model(workspace, "tiny")
    given = answer(workspace, config(), "Hello", n=2, seed=6)
    log = Log(workspace)
    assert [c["source"] for c in log.chats()] == ["once", "once"]
    ids = [c["id"] for c in log.chats()][::-1]
    assert [[t["text"] for t in replay(workspace, config(), i)] for i in ids] == [[a["text"]] for a in given]
    answer(workspace, config(log=False), "Hello")
    assert len(log.chats()) == 2
    log.close()


def test_a_chat_can_be_found_gone_on_with_and_forked(workspace: Workspace) -> None:
    with talking(workspace) as talk:
        talk.reply("Hello")
        one = talk.chat
        perform(talk, "/new")
        talk.reply("Bye")
        two = talk.chat
        perform(talk, "/history")
        assert any("Hello" in line for line in talk.screen.shown) and any("Bye" in line for line in talk.screen.shown)
        perform(talk, f"/load {one}")
        assert talk.session.messages[0]["content"] == "Hello" and talk.chat == one
        perform(talk, "/fork")
        assert talk.chat not in (one, two)
        perform(talk, "/history")
        assert talk.screen.shown[-1].startswith(f"*{talk.chat:>5} ") and "Hello" in talk.screen.shown[-1]
        talk.last = "What?"
        talk.reply("What?")
        assert talk.log is not None
        assert len(talk.log.dialogue(one)) == 2 and len(talk.log.dialogue(talk.chat)) == 4
        perform(talk, "/save mine")
        perform(talk, "/new")
        perform(talk, "/load mine")
        assert [m["content"] for m in talk.session.messages if m["role"] == "user"] == ["Hello", "What?"]
        for wrong in ("/load", "/load 99", "/history x", "/load nothing"):
            with pytest.raises(UserError):
                perform(talk, wrong)


def test_what_is_taken_back_is_not_what_is_asked_again(workspace: Workspace) -> None:
    with talking(workspace) as talk:
        for said in ("Hello", "Bye"):
            talk.last = said
            talk.reply(said)
        perform(talk, "/undo")
        perform(talk, "/retry")
        assert [m["content"] for m in talk.session.messages][0::2] == ["Hello"]
        perform(talk, "/new")
        with pytest.raises(UserError, match="nothing has been said"):
            perform(talk, "/retry")


def test_a_comparison_of_equal_answers_is_tried_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    made = iter(["a", "a", "a", "b"])
    monkeypatch.setattr(
        commands_judge, "samples", lambda *_: [Turn([1], sampling_of(config()), 0, [2], next(made, "a"), "stop")]
    )
    with talking(workspace, ["A"]) as talk:
        talk.session.messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        perform(talk, "/compare")
        assert {line for line in talk.screen.shown if line.startswith("[")} in ({"[A] a", "[B] b"}, {"[A] b", "[B] a"})
        with pytest.raises(UserError, match="both answers are the same: a"):
            perform(talk, "/compare")


def test_edit_puts_another_question_in_the_place_of_the_last(workspace: Workspace) -> None:
    with talking(workspace, ["What is it?"]) as talk:
        talk.reply("Hello")
        talk.last = "Hello"
        perform(talk, "/edit Who are you?")
        assert [m["content"] for m in talk.session.messages][0::2] == ["Who are you?"]
        perform(talk, "/edit")
        assert [m["content"] for m in talk.session.messages][0::2] == ["What is it?"]


def test_a_comparison_is_kept_as_rm_reads_it(workspace: Workspace) -> None:
    with talking(workspace, ["b", "=", ""]) as talk:
        talk.reply("Hello")
        perform(talk, "/compare other")
        shown = [line[4:] for line in talk.screen.shown if line.startswith(("[A]", "[B]"))]
        assert talk.session.messages[-1]["content"].strip() == shown[1]
        perform(talk, "/compare")
        perform(talk, "/compare")
        assert talk.screen.shown[-1] == "nothing kept"
        found = read_comparisons(workspace.find("choices", ["comparisons"]).path)
        assert len(found.rows) == 2
        assert found.rows[0]["prompt"] == [{"role": "user", "content": "Hello"}]
        assert dict(zip(found.rows[0]["responses"], found.rows[0]["ranking"], strict=True)) == {
            shown[0]: 1,
            shown[1]: 0,
        }
        assert found.rows[1]["ranking"] == [0, 0]
        put_model(workspace, "base", Pretrain)
        with pytest.raises(UserError, match="base model"):
            perform(talk, "/compare base")


def test_corrections_of_earlier_sessions_stay(workspace: Workspace) -> None:
    for text in ("One.", "Two."):
        with talking(workspace) as talk:
            talk.reply("Hello")
            perform(talk, "/good")
            perform(talk, f"/bad {text}")
    rows = read_conversations(workspace.find("corrections", ["conversations"]).path).rows
    assert [r["messages"][-1]["content"] for r in rows] == ["One.", "Two."]
    digest = workspace.find("corrections").digest
    with talking(workspace) as talk:
        talk.reply("Hello")
        perform(talk, "/bad Three.")
    assert workspace.find("corrections").digest != digest


def test_what_was_kept_before_there_was_a_log_is_taken_over(workspace: Workspace) -> None:
    with talking(workspace) as talk:
        old = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "kind": "chat"}]
        from llmctl.chat.save import save_conversations

        save_conversations(workspace, talk.config, "corrections", old)
        talk.reply("Hello")
        perform(talk, "/bad Hi.")
    rows = read_conversations(workspace.find("corrections").path).rows
    assert sorted(r["messages"][-1]["content"] for r in rows) == ["Hi.", "b"]


def test_a_reward_model_gives_its_opinion_and_chooses(workspace: Workspace) -> None:
    put_model(workspace, "judge", reward=True)
    with talking(workspace) as talk:
        talk.reply("Hello")
        with pytest.raises(UserError, match="which reward model"):
            perform(talk, "/score")
        perform(talk, "/score judge")
        assert talk.screen.shown[-1].endswith("by judge")
        perform(talk, "/n 4")
        talk.reply("What?")
        scores = [float(line.split("(")[1].split(")")[0]) for line in talk.screen.shown[-4:]]
        texts = [line.split(") ", 1)[1] for line in talk.screen.shown[-4:]]
        assert talk.session.messages[-1]["content"].strip() == texts[scores.index(max(scores))]
        perform(talk, "/n 1")
        with pytest.raises(UserError):
            perform(talk, "/n 0")


def test_without_a_reward_model_the_person_chooses(workspace: Workspace) -> None:
    with talking(workspace, ["9", "2"]) as talk:
        perform(talk, "/n 2")
        talk.reply("Hello")
        assert talk.session.messages[-1]["content"].strip() == talk.screen.shown[-1].removeprefix("[2] ")


def test_another_model_goes_on_with_the_conversation(workspace: Workspace) -> None:
    put_model(workspace, "base", Pretrain)
    with talking(workspace) as talk:
        talk.reply("Hello")
        perform(talk, "/model other")
        talk.reply("And you?")
        assert len(talk.session.messages) == 4 and talk.log is not None
        assert [t.model for t in talk.log.turns(talk.chat)] == ["tiny", "other"]
        perform(talk, "/model")
        assert "* other (sft)" in talk.screen.shown
        perform(talk, "/model base")
        assert talk.session.messages == []
        talk.reply("Once")
        assert talk.log.dialogue(talk.chat)[0]["role"] == "document"
        with pytest.raises(UserError, match="did you mean 'tiny'"):
            perform(talk, "/model tinny")


def test_tools_are_switched(workspace: Workspace) -> None:
    with talking(workspace) as talk:
        perform(talk, "/tools python off")
        assert talk.session.speaker.tools is None and talk.screen.shown[-1] == "python off, search off"
        perform(talk, "/tools python on")
        assert talk.session.speaker.tools is not None
        with pytest.raises(UserError):
            perform(talk, "/tools python perhaps")


def test_names_are_completed(workspace: Workspace) -> None:
    with talking(workspace) as talk:
        assert list(completions(talk, "/he")) == ["/help"]
        assert list(completions(talk, "/model ti")) == ["tiny"]
        assert "temperature=" in list(completions(talk, "/set top_k=1 te"))
        assert list(completions(talk, "hello")) == []
        wanted = "help new system set retry undo edit save load fork history model tools tokens probs score n quit"
        assert set(COMMANDS) >= set(wanted.split())


def test_a_base_text_begins_with_the_tokenizer_s_own_beginning() -> None:
    voice = speaker([" b"], chats=False)
    tok = voice.tokenizer
    tok.config["bos_token"] = "A"
    list(Session(voice, sampling_of(config())).reply("Once"))
    assert tok.bos_id != tok.eos_id
    assert voice.engine.prompts == [[tok.bos_id, *tok.encode("Once")]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("2 1 3", [1, 0, 2]),
        ("2>1>3", [1, 0, 2]),
        ("3, 1 = 2", [1, 1, 0]),
        ("1=2=3", [0, 0, 0]),
        ("1 2", None),
        ("1 2 2", None),
        ("1 2 3 4", None),
        ("a b c", None),
        ("", None),
    ],
)
def test_an_order_is_read(typed: str, wanted: list[int] | None) -> None:
    assert ranks(typed, 3) == wanted


def labelled(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> Scripted:
    screen = Scripted(lines)
    monkeypatch.setattr(labelling, "screen_for", lambda *_: screen)
    return screen


def test_ranking_is_taken_up_where_it_was_left(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    put_model(workspace, "tiny")
    (tmp_path / "p.txt").write_text("Who are you?\n\nWhat is 12?\nHello\n")
    asked, console = config(out="mine"), Console(quiet=True)
    first = labelled(monkeypatch, ["?", "nonsense", "3 1=2", "/quit"])
    labelling.rank(workspace, asked, tmp_path / "p.txt", 3, console)
    assert first.shown.count(labelling.INSTRUCTIONS) == 2
    second = labelled(monkeypatch, ["", "1 2 3"])
    made = labelling.rank(workspace, asked, tmp_path / "p.txt", 3, console)
    assert not any("Who are you" in line for line in second.shown)
    assert made is not None
    rows = read_comparisons(made.path).rows
    assert [r["prompt"][0]["content"] for r in rows] == ["Who are you?", "Hello"]  # the second was passed over
    assert rows[0]["ranking"] == [1, 1, 0] and rows[1]["ranking"] == [0, 1, 2]
    third = labelled(monkeypatch, [])
    labelling.rank(workspace, asked, tmp_path / "p.txt", 3, console)
    # The same answers are shown again to whoever comes back.
    assert [s for s in third.shown if s.startswith("\n[")] == [s for s in second.shown if s.startswith("\n[")][:3]


def test_answers_are_written_and_kept_as_sft_reads_them(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    rows = [
        {"prompt": "One?"},
        {"messages": [{"role": "user", "content": "Two?"}, {"role": "assistant", "content": "x"}]},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "how.txt").write_text("Be kind.")
    asked = config(model="", out="mine", instructions=str(tmp_path / "how.txt"))
    screen = labelled(monkeypatch, ["First.\nSecond line.", ""])
    made = labelling.write(workspace, asked, tmp_path / "p.jsonl", Console(quiet=True))
    assert screen.shown[0] == "Be kind." and made is not None
    (row,) = read_conversations(made.path).rows
    assert [m["content"] for m in row["messages"]] == ["One?", "First.\nSecond line."]


def test_a_prompt_that_is_none_is_named(tmp_path: Any) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"x": 1}\n')
    with pytest.raises(UserError, match=r"p.jsonl:2.*keys are x"):
        read_prompts(tmp_path / "p.jsonl")
    (tmp_path / "empty.txt").write_text("\n")
    for name in ("empty.txt", "none.txt"):
        with pytest.raises(UserError):
            read_prompts(tmp_path / name)


def test_a_damaged_log_is_one_line(workspace: Workspace) -> None:
    workspace.root.mkdir()
    (workspace.root / "chats.sqlite").write_text("not a database, " * 100)
    with pytest.raises(UserError, match="cannot keep the log"):
        Log(workspace)
