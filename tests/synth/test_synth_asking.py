"""Nothing that was answered is asked again, whatever broke off; near copies are found; seeds do not depend on order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmctl.console import Console
from llmctl.endpoint import ChatSampling, EndpointSettings, Reply, open_writer
from llmctl.endpoint.local import LocalWriter
from llmctl.synth.asking import Asking, Journal, seed_of
from llmctl.synth.near import Near
from llmctl.workspace import Workspace


def questions(n: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"question {i}"}] for i in range(n)]


def test_what_was_answered_is_not_asked_again(asking: Callable[..., Asking]) -> None:
    def fails_at_6(messages: Any, seed: int) -> str:
        if messages[0]["content"] == "question 6":
            raise KeyboardInterrupt
        return f"{messages[0]['content']} / {seed}"

    first = asking(fails_at_6)
    with pytest.raises(KeyboardInterrupt):
        first.ask("t", questions(10), ChatSampling(), list(range(10)))
    again = asking(lambda m, seed: f"{m[0]['content']} / {seed}")
    replies = again.ask("t", questions(10), ChatSampling(), list(range(10)))
    assert [r.text for r in replies] == [f"question {i} / {i}" for i in range(10)]
    assert again.writer.asked == 4 and again.spent.asked == 10 and again.spent.tokens_in == 100  # type: ignore[attr-defined]
    third = asking(lambda m, seed: "never asked")
    assert third.ask("t", questions(10), ChatSampling(), list(range(10))) == replies
    other = asking(lambda m, seed: "warmer")
    assert other.ask("t", questions(1), ChatSampling(temperature=1.0), [0])[0].text == "warmer"


def test_a_failure_that_may_pass_is_asked_again_and_a_lasting_one_is_not(asking: Callable[..., Asking]) -> None:
    failed = asking(lambda m, seed: Reply.failed("busy", lasting=False) if seed else Reply.failed("HTTP 400: no"))
    assert [r.why for r in failed.ask("t", questions(2), ChatSampling(), [0, 1])] == ["HTTP 400: no", "busy"]
    again = asking(lambda m, seed: "here")
    found = again.ask("t", questions(2), ChatSampling(), [0, 1])
    assert [(r.why, r.text) for r in found] == [("HTTP 400: no", ""), ("", "here")]


def test_a_journal_survives_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path).add("a", {"text": "ü\n\u2028"})
    with open(path, "ab") as f:
        f.write(b'{"key": "b", "te')
    found = Journal(path)
    assert found.found == {"a": {"text": "ü\n\u2028"}}
    found.add("c", {"text": "3"})
    assert set(Journal(path).found) == {"a", "c"}


def test_a_limit_of_cost_stops_and_keeps(tmp_path: Path, server: Any, workspace: Workspace) -> None:
    from llmctl.errors import UserError

    settings = EndpointSettings(url=server.url, model="m", concurrency=1, price_in=100_000.0, max_cost=2.0)

    def ask(settings: EndpointSettings) -> Asking:
        return Asking("t", open_writer(workspace, "", settings), tmp_path, settings, Console(quiet=True))

    with pytest.raises(UserError, match=r"2\.10 spent"):  # three replies of 7 tokens at 0.1 each
        ask(settings).ask("t", questions(9), ChatSampling(), list(range(9)))
    more = ask(settings.model_copy(update={"max_cost": 0.0}))
    assert len(more.ask("t", questions(9), ChatSampling(), list(range(9)))) == 9
    assert more.report()["cost"] == pytest.approx(6.3)
    # One request may have been under way when the limit was reached.
    assert len(server.asked) <= 10


def test_a_local_model_goes_on_where_it_was_with_the_same_words(
    student: str, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalWriter, "batch", 4)
    writer = LocalWriter.load(workspace, student)
    sampling, seeds = ChatSampling(max_tokens=8, temperature=1.0), [seed_of("s", i) for i in range(10)]
    whole = [r for _, r in writer.answers(questions(10), sampling, seeds)]
    assert len({r.text for r in whole}) > 5 and all(r.tokens_out <= 8 for r in whole)
    asking = Asking("t", writer, tmp_path, EndpointSettings(), Console(quiet=True))
    asking.ask("t", questions(10)[:6], ChatSampling(8, 1.0), seeds[:6])
    # The second batch was cut short: it is asked whole, so that its replies are those of an unbroken run.
    resumed = Asking("t", writer, tmp_path, EndpointSettings(), Console(quiet=True))
    assert resumed.ask("t", questions(10), ChatSampling(8, 1.0), seeds) == whole
    assert writer.chat(questions(1)[0], sampling) == writer.chat(questions(1)[0], sampling)


def test_a_question_that_fills_the_context_has_no_reply(student: str, workspace: Workspace) -> None:
    writer = LocalWriter.load(workspace, student)
    long = [{"role": "user", "content": "sea " * 500}]
    found = dict(writer.answers([long, questions(1)[0]], ChatSampling(max_tokens=4)))
    assert "fills the model's context" in found[0].why and not found[1].why


def test_near_copies() -> None:
    seen = Near(0.5)
    assert seen.add("How do I bake a loaf of good bread at home?")
    assert not seen.add("how do I bake a loaf of good bread, at home")
    assert not seen.add("Please, how do I bake a loaf of good bread at home?")
    assert seen.add("How do I repair the chain of a bicycle?")
    assert seen.add("Hi") and not seen.add("hi!") and seen.add("")
    # By hand: the triples abc bcd and bcd cde share one of three.
    assert not _pair(1 / 3, "a b c d", "b c d e") and _pair(0.34, "a b c d", "b c d e")


def _pair(alike: float, first: str, second: str) -> bool:
    seen = Near(alike)
    return seen.add(first) and seen.add(second)
