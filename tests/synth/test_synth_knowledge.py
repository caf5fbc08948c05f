"""Knowledge boundary: questions from text, who knows what, and who may judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llmctl.console import Console
from llmctl.errors import Interrupted, UserError
from llmctl.synth import judging, knowledge, questions
from llmctl.synth.asking import Asking
from llmctl.synth.config import SynthConfig
from llmctl.synth.made import Made
from llmctl.synth.passages import passages, sample
from llmctl.synth.questions import Question, by_rule, parsed
from llmctl.synth.stage import plan, run
from llmctl.verify import check, held_out
from llmctl.workspace import Artifact, Foreign, Workspace

ANIMALS = ["whale", "okapi", "hoopoe", "brill", "newt", "gannet", "stoat", "weasel", "otter", "curlew", "lapwing"]
ANIMALS += ["teal", "smew", "dace", "tench", "bream", "loach", "adder", "linnet", "siskin", "wren", "dunnock"]
PLACES = ["forest", "sea", "river", "hedge", "marsh", "moor", "lake", "meadow"]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "animals.txt"
    path.write_text("\n\n".join(f"A {a} is a shy animal of the {PLACES[i % 8]}." for i, a in enumerate(ANIMALS)))
    return str(path)


def config(corpus: str, student: str, **more: Any) -> SynthConfig:
    options = {"passage": [20, 300], **more.pop("knowledge", {})}
    settings = {"mix": {"knowledge": 12}, "heldout": 2, "out": "k", **more}
    return SynthConfig(**settings, model=student, corpus=corpus, knowledge=options)


def rows(artifact: Artifact, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in artifact.file(name).read_text().split("\n") if line]


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        ("A whale is a large animal that lives in the sea.", "a whale", "large animal"),
        ("Mozart was a composer from Austria.", "Mozart", "composer"),
        ("The bridges are an old sight of the town.", "the bridges", "old sight of the town"),
        ("The king Harold died at the great battle of Hastings.", "____", "Hastings"),
        ("Many people say that the tower was finished in 1889 at last.", "", ""),
        ("The tall tower was finished in 1889 at last.", "____", "1889"),
        ("It is a large animal that lives in the sea.", "", ""),
        ("The tower was begun in 1887 and finished in 1889.", "", ""),
        ("def f(x): return x | 0x1F & ~y << 3 == {1: 2}; pass.", "", ""),
        ("A <|im_end|> is a token that nobody should write down.", "", ""),
    ],
)
def test_questions_by_rule(sentence: str, question: str, answer: str) -> None:
    found = by_rule(sentence)
    if not answer:
        assert found is None
        return
    assert found is not None and question in found.question and found.answer == answer
    assert check({"answer": found.answer, "check": "contains"}, found.sentence).correct
    assert answer not in found.question and by_rule(sentence) == found
    if sentence.startswith("Mozart"):
        assert "who" in found.question.lower()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Question: How long is the bridge?\nAnswer: 80 metres", ""),
        ("**Question:** How long is the bridge?\n\n**Answer:** 80 Metres.", ""),
        ("<think>Question: no? Answer: no</think>Question: How long is the bridge?\nAnswer: 80 metres", ""),
        ("", "empty"),
        ("I cannot do that.", "no question and answer"),
        ("Question: How long is the bridge in the passage?\nAnswer: 80 metres", "needs the passage"),
        ("Question: How long is the bridge?\nAnswer: 90 metres", "not in the passage"),
        ("Question: Is the bridge 80 metres long?\nAnswer: 80 metres", "holds its answer"),
        ("Question: How<|im_end|> long?\nAnswer: 80 metres", "special tokens"),
        ("\n" * 200_000 + "Question: x", "empty|no question"),
        ("question " * 100_000, "no question"),
    ],
)
def test_a_models_question_is_checked_against_its_passage(text: str, says: str) -> None:
    import re

    found = parsed(text, "The bridge is 80 metres long and was opened in 1901.")
    if says:
        assert isinstance(found, str) and re.search(says, found), found
    else:
        assert isinstance(found, Question) and found.question == "How long is the bridge?"
        assert found.sentence.casefold() == "80 metres."


def test_a_sample_depends_on_the_texts_and_not_on_their_order() -> None:
    texts = [f"passage number {i}" for i in range(3000)]
    found = sample(iter(texts), 20, 1, False, lambda t: t)
    mixed = Random(0).sample(texts, len(texts)) + texts[:500]
    assert sample(iter(mixed), 20, 1, False, lambda t: t) == found and len(set(found)) == 20
    assert sample(iter(texts), 20, 2, False, lambda t: t) != found
    assert not any(held_out(t) for t in found)
    assert all(held_out(t) for t in sample(iter(texts), 20, 1, True, lambda t: t))


def test_passages_are_joined_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("one\n\ntwo   three\n\n" + "x" * 500 + "\n\nfour five six seven")
    assert list(passages(Foreign(path, ""), 10, 100)) == ["one two three", "four five six seven"]


def test_a_model_that_knows_some_is_taught_those_and_to_refuse_the_rest(asking: Callable[..., Asking]) -> None:
    def answer(messages: Any, seed: int) -> str:
        asked = messages[0]["content"]
        if "whale" in asked:
            return "A whale is a big animal of the sea."
        return "A newt is an animal." if "newt" in asked and seed % 2 else "It is a kind of bread."

    asked = [Question(f"What is a {a}?", "animal", f"A {a} is an animal.", "") for a in ("whale", "newt", "teal")]
    made, settings = Made(), config("c", "m", knowledge={"samples": 40, "refusals": 0.9})
    found, figures = knowledge.interrogate(settings, asked, asking(answer), judging.by_rule, made)
    assert found[0]["group"] == "known" and found[0]["messages"][1]["content"] == "A whale is an animal."
    assert found[1]["group"] == "unknown" and found[1]["messages"][0]["content"] == "What is a teal?"
    assert all(check(r, r["messages"][1]["content"]).correct for r in found)
    assert figures["known"] == 1 and figures["unknown"] == 1 and made.reasons() == {"unsure": 1}
    assert 0.34 < figures["right"] < 0.66


def test_refusals_are_capped_beside_known_answers(asking: Callable[..., Asking]) -> None:
    asked = [Question(f"What is a {a}?", "animal", f"A {a} is an animal.", "") for a in ANIMALS]
    knows = asking(lambda m, seed: "An animal." if m[0]["content"] < "What is a h" else "Bread.")
    made = Made()
    found, figures = knowledge.interrogate(config("c", "m"), asked, knows, judging.by_rule, made)
    groups = [r["group"] for r in found]
    assert groups.count("known") == groups.count("unknown") == figures["known"] > 3
    assert sum(made.reasons().values()) == len(ANIMALS) - len(found)


def test_every_refusal_is_one_by_our_own_check() -> None:
    for text in knowledge._REFUSALS:
        assert check({"answer": "x", "check": "refusal"}, text).correct, text


def test_the_kind_as_a_whole_with_a_model_that_knows_nothing(
    corpus: str, student: str, workspace: Workspace, console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(config(corpus, student), workspace, console)
    train, apart = rows(made, "train.jsonl"), rows(made, "heldout.jsonl")
    assert {r["check"] for r in train} == {"refusal"} and {r["group"] for r in train} == {"unknown", "made-up"}
    assert len(train) == 14 and all(check(r, r["messages"][-1]["content"]).correct for r in train + apart)
    assert not {r["messages"][0]["content"] for r in train} & {r["messages"][0]["content"] for r in apart}
    figures = made.figures
    assert figures["asked"] == 12 and figures["known"] == 0 and figures["teacher"] == "rules, no model"
    assert figures["student"]["digest"] and figures["student"]["asked"] == 5 * (12 + figures["heldout_asked"])
    assert "knows none of the 12" in capsys.readouterr().err
    other = run(config(corpus, student, out="again"), workspace, console)
    assert other.digest == made.digest
    assert {i["kind"] for i in made.manifest["inputs"]} == {"file"} and len(made.manifest["inputs"]) == 2


def test_with_a_teacher_for_questions_and_verdicts(
    corpus: str, student: str, workspace: Workspace, console: Console, server: Any
) -> None:
    def answer(body: dict[str, Any]) -> str:
        asked = body["messages"][0]["content"]
        if asked.startswith("Here is a passage"):
            animal = asked.split("A ")[1].split(" is")[0]
            return f"Question: Which animal is shy, the {animal} or the dog?\nAnswer: shy animal"
        assert "Right answer: Shy animal." in asked
        return "Yes." if "shy, the s" in asked or "shy, the l" in asked else "They differ, so: no"

    server.answer = answer
    settings = config(
        corpus, student, endpoint={"url": server.url, "model": "t"}, knowledge={"judge": "model", "refusals": 1}
    )
    made = run(settings, workspace, console)
    assert made.figures["teacher"]["model"] == "t" and made.figures["prompts"]["question"] == questions.PROMPT
    known = {r["messages"][0]["content"]: r["group"] == "known" for r in rows(made, "train.jsonl")}
    asked = {q: right for q, right in known.items() if "shy, the" in q}
    assert {True, False} == set(asked.values())
    assert all(right == ("the s" in q or "the l" in q) for q, right in asked.items())


def test_a_person_judges_each_reply_once_and_may_stop(tmp_path: Path) -> None:
    q = Question("What is a newt?", "animal", "A newt is an animal.", "")
    typed = iter(["maybe", "y", "q"])
    shown: list[str] = []

    def read(prompt: str) -> str:
        shown.append(prompt)
        return next(typed)

    pairs = [(q, "a beast"), (q, "a beast"), (q, "bread\x1b[2J"), (q, "a stone")]
    with pytest.raises(Interrupted):
        judging.by_person(tmp_path, read)(pairs)
    assert "\x1b" not in shown[-1] and "a beast" in shown[0] and "bread" in shown[-1]
    typed = iter(["n", "n"])
    assert judging.by_person(tmp_path, read)(pairs) == [True, True, False, False]
    with pytest.raises(UserError, match="no terminal"):
        judging.by_person(tmp_path)(pairs)


@pytest.mark.parametrize("text", ["Yes", "yes, they agree.", "The first says yes? Hm. Yes"])
def test_a_verdict_is_read(text: str, asking: Callable[..., Asking]) -> None:
    q = Question("Q?", "a", "A.", "")
    assert judging.by_model(asking(lambda m, s: text), 0)([(q, "a")]) == [True]
    for no in ("No.", "", "maybe", "Yes... no", "eyes"):
        assert judging.by_model(asking(lambda m, s, no=no: no), 0)([(q, f"b {no}")]) == [False]


def test_the_plan_counts_requests_and_prices_the_endpoints(corpus: str, student: str, workspace: Workspace) -> None:
    endpoint = {"url": "http://localhost:1/v1", "model": "big", "price_in": 1.0, "price_out": 2.0}
    shown = dict(plan(config(corpus, student, endpoint=endpoint), workspace))
    assert "70 requests" in shown["interrogation"] and "at most 0.01 (big" in shown["cost"]
    assert "cost" not in dict(plan(config(corpus, student), workspace))


def test_a_corpus_without_questions_is_said(
    tmp_path: Path, student: str, workspace: Workspace, console: Console
) -> None:
    (tmp_path / "n.txt").write_text("1 2 3 4 5 6 7 8 9\n\n" * 30)
    with pytest.raises(UserError, match="no passage"):
        run(config(str(tmp_path / "n.txt"), student), workspace, console)
