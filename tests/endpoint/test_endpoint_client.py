"""The client of OpenAI-compatible endpoints, against a server that fails in every way a server can."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, completion

from llmctl.endpoint import ChatSampling, Endpoint, EndpointSettings, open_writer
from llmctl.errors import UserError
from llmctl.workspace import Workspace

ASK = [{"role": "user", "content": "Say yes."}]


def questions(n: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": str(i)}] for i in range(n)]


def echo(body: dict[str, Any]) -> str:
    return "re: " + str(body["messages"][-1]["content"])


def test_one_reply_and_what_was_sent(server: FakeEndpoint) -> None:
    writer = Endpoint(server.url + "/", "m-1", "sk-secret", extra={"top_k": 5, "top_p": None})
    sampling = ChatSampling(max_tokens=9, temperature=0.5, stop=("END",), seed=2**40 + 3)
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert writer.chat(parts, sampling) == "yes"
    sent = {"model": "m-1", "max_tokens": 9, "temperature": 0.5, "stop": ["END"], "seed": 3, "top_k": 5}
    assert server.asked == [{**sent, "messages": [{"role": "user", "content": "ab"}]}]
    assert server.keys == ["Bearer sk-secret"]
    assert "sk-secret" not in str(writer.who()) and writer.who() == {"endpoint": server.url, "model": "m-1"}


def test_many_at_once_each_in_its_place(server: FakeEndpoint) -> None:
    server.answer, server.delay = echo, 0.05
    writer = Endpoint(server.url, "m", concurrency=6)
    found = dict(writer.answers(questions(30), ChatSampling(seed=100)))
    assert {i: r.text for i, r in found.items()} == {i: f"re: {i}" for i in range(30)}
    assert 1 < server.most <= 6
    assert {int(b["messages"][0]["content"]): b["seed"] for b in server.asked} == {i: 100 + i for i in range(30)}
    assert found[0].tokens_in == 7 and found[0].tokens_out == 3


@pytest.mark.parametrize(
    "failure",
    [
        ("status", 500),
        ("status", 503),
        ("status", 429, {"Retry-After": "0"}),
        ("cut",),
        ("raw", b"<html>busy</html>"),
        ("raw", b'{"choices": []}'),
        ("raw", b"[" * 100_000),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again(server: FakeEndpoint, failure: tuple[Any, ...]) -> None:
    server.failures = [failure, failure]
    assert Endpoint(server.url, "m").chat(ASK) == "yes"
    assert len(server.asked) == 3


def test_retry_after_is_waited_for_by_everybody(server: FakeEndpoint) -> None:
    server.failures = [("status", 429, {"Retry-After": "0.4"})]
    server.answer = echo
    found = dict(Endpoint(server.url, "m", concurrency=1).answers(questions(3)))
    assert [found[i].text for i in range(3)] == ["re: 0", "re: 1", "re: 2"]
    assert server.times[1] - server.times[0] >= 0.4
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=2), usegmt=True)
    server.failures = [("status", 503, {"Retry-After": later})]
    begun = time.monotonic()
    assert Endpoint(server.url, "m").chat(ASK) == "re: Say yes."
    assert time.monotonic() - begun >= 0.9


def test_a_slow_server_is_left_and_tried_again(server: FakeEndpoint) -> None:
    server.failures = [("slow", 2.0)]
    begun = time.monotonic()
    assert Endpoint(server.url, "m", timeout=0.3).chat(ASK) == "yes"
    assert time.monotonic() - begun < 2


def test_tries_come_to_an_end(server: FakeEndpoint) -> None:
    server.failures = [("status", 500)] * 3
    with pytest.raises(UserError, match=r"HTTP 500: not now \(3 tries\)"):
        Endpoint(server.url, "m", attempts=3).chat(ASK)
    assert len(server.asked) == 3


def test_a_refused_request_is_not_repeated_and_costs_only_itself(server: FakeEndpoint) -> None:
    server.answer = lambda body: 400 if body["messages"][0]["content"] == "1" else echo(body)
    found = dict(Endpoint(server.url, "m").answers(questions(3)))
    assert found[1].why == "HTTP 400: bad no such thing" and found[1].text == "" and found[2].text == "re: 2"
    assert len(server.asked) == 3


@pytest.mark.parametrize(("status", "fix"), [(401, "key_env"), (403, "may not use"), (404, "/v1")])
def test_a_wrong_key_or_address_ends_it_at_once(server: FakeEndpoint, status: int, fix: str) -> None:
    server.answer = lambda body: status
    with pytest.raises(UserError, match=fix):
        list(Endpoint(server.url, "m", concurrency=2).answers(questions(50)))
    assert len(server.asked) <= 4


def test_an_outage_ends_it_with_what_has_come(server: FakeEndpoint) -> None:
    server.answer = lambda body: 422 if int(body["messages"][0]["content"]) >= 5 else "fine"
    came = []
    with pytest.raises(UserError, match="12 requests in a row"):
        for i, reply in Endpoint(server.url, "m", concurrency=1).answers(questions(100)):
            came.append((i, reply.text))
    assert came[:5] == [(i, "fine") for i in range(5)] and len(server.asked) < 20


def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(UserError, match="nobody answers"):
        Endpoint("http://127.0.0.1:1/v1", "m").chat(ASK)


def test_a_used_up_quota_is_not_hammered(server: FakeEndpoint) -> None:
    server.failures = [("status", 429, {"Retry-After": "86400"})]
    with pytest.raises(UserError, match="quota"):
        Endpoint(server.url, "m").chat(ASK)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "text", "reasoning", "finish"),
    [
        (completion(None), "", "", "stop"),
        (completion("4", reasoning_content="2 and 2"), "4", "2 and 2", "stop"),
        (completion("4", "length", reasoning="hm"), "4", "hm", "length"),
        (completion([{"type": "text", "text": "4"}]), "4", "", "stop"),  # type: ignore[arg-type]
        (completion("a\ud800b"), "a?b", "", "stop"),
        ({"choices": [{"message": {"content": "no usage"}}]}, "no usage", "", "stop"),
    ],
    ids=str,
)
def test_answers_of_every_shape(
    server: FakeEndpoint, answer: dict[str, Any], text: str, reasoning: str, finish: str
) -> None:
    server.answer = lambda body: answer
    [(_, reply)] = Endpoint(server.url, "m").answers([ASK])
    assert (reply.text, reply.reasoning, reply.finish, reply.why) == (text, reasoning, finish, "")
    assert reply.tokens_in > 0


def test_a_huge_answer_is_not_taken_in(server: FakeEndpoint) -> None:
    server.answer = lambda body: b" " * (17 << 20)
    [(_, reply)] = Endpoint(server.url, "m").answers([ASK])
    assert "over 16 MB" in reply.why and len(server.asked) == 1


def test_newer_servers_get_the_newer_name_of_the_limit(server: FakeEndpoint) -> None:
    body = b'{"error": {"message": "Unsupported parameter: use max_completion_tokens instead."}}'

    def refuse(h: Any, sent: dict[str, Any]) -> None:
        from fake_endpoint import _send

        _send(h, 400, body, None) if "max_tokens" in sent else real(h, sent)

    real, server._reply = server._reply, refuse  # type: ignore[method-assign]
    writer = Endpoint(server.url, "m")
    assert writer.chat(ASK) == writer.chat(ASK) == "yes"
    assert ["max_tokens" in b for b in server.asked] == [True, False, False]


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x/v1", "http://", "http://a b/v1", "http://x:99999/v1"])
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(UserError, match="no address"):
        Endpoint(url, "m")


def test_a_key_does_not_travel_in_the_clear() -> None:
    with pytest.raises(UserError, match="in the clear"):
        Endpoint("http://example.org/v1", "m", "sk")
    with pytest.raises(UserError, match="no key has"):
        Endpoint("https://example.org/v1", "m", "sk\nInjected: header")
    Endpoint("http://[::1]:8000/v1", "m", "sk")


def test_settings_open_an_endpoint(server: FakeEndpoint, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "abc\n")
    settings = EndpointSettings(url=server.url, model="m", key_env="MY_KEY", price_in=2, price_out=8)
    assert open_writer(workspace, "", settings).chat(ASK) == "yes" and server.keys == ["Bearer abc"]
    assert settings.cost(1_000_000, 500_000) == 6.0
    with pytest.raises(UserError, match="a judge is needed"):
        open_writer(workspace, "", EndpointSettings(), "a judge")
    for wrong in ({"url": "http://x/v1"}, {"url": "http://x/v1", "model": "m", "max_cost": 1.0}):
        with pytest.raises(ValueError, match=r"needs both|needs price_in"):
            EndpointSettings(**wrong)
