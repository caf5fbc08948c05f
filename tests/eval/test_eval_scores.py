from __future__ import annotations

from typing import Any

from llmctl.eval.page import score_chart, write_report
from llmctl.eval.scores import comparisons, figures, headline, scores, share
from llmctl.eval.summary import markdown


def row(i: int, task: str = "sums", correct: bool = True, group: str = "", **more: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": f"{task} {i}?"}], "answer": str(i), "check": "number"}
    said = {"reply": f"It is {i}.", "formatted": True, "refused": False, "tokens": 4, "finish": "stop"}
    return {"id": f"{task}{i}", "task": task, "group": group, "correct": correct, **asked, **said, **more}


def facts(label: str, role: str = "language", chats: bool = True) -> dict[str, Any]:
    return {"label": label, "role": role, "chats": chats, "digest": "d" * 64, "parameters": 1000, "kind": "model"}


def results(answers: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    models = [facts(label, chats=i > 0) for i, label in enumerate(answers)]
    found = [s for label, rows in answers.items() for s in scores(label, rows)]
    found.append({**share(next(iter(answers)), "bits_per_byte", 0, 0), "value": 1.25, "unit": "bits a byte"})
    items = {"count": 4, "sha256": "0", "sources": ["talks"]}
    return {
        "seed": 0, "settings": {"temperature": 0.0}, "headline": headline(models, found), "models": models,
        "data": {"items": items, "tokens": None, "comparisons": []}, "scores": found,
        "paired": comparisons(answers), "notes": [],
    }  # fmt: skip


ANSWERS = {
    "base": [row(1, correct=False), row(2, correct=False), row(3, "names", False, "known", refused=True),
             row(4, "names", True, "made-up", check="refusal")],
    "chat": [row(1), row(2, correct=False, finish="length"), row(3, "names", True, "known"),
             row(4, "names", True, "made-up", check="refusal")],
}  # fmt: skip


def test_scores_count_tasks_and_the_groups_that_are_told_apart() -> None:
    found = {(s["task"], s["group"]): s for s in scores("chat", ANSWERS["chat"])}
    assert list(found) == [("all", ""), ("sums", ""), ("names", ""), ("names", "known"), ("names", "made-up")]
    assert (found["all", ""]["correct"], found["all", ""]["n"]) == (3, 4)
    assert found["sums", ""]["value"] == 0.5 and found["sums", ""]["cut_off"] == 1
    base = {(s["task"], s["group"]): s for s in scores("base", ANSWERS["base"])}
    assert base["names", "known"]["refused"] == 1


def test_only_models_that_answered_the_same_items_are_compared() -> None:
    found = comparisons({**ANSWERS, "other": [row(9)]})
    assert [(c["first"], c["second"], c["task"]) for c in found] == [
        ("base", "chat", "all"), ("base", "chat", "sums"), ("base", "chat", "names")
    ]  # fmt: skip
    assert (found[0]["only_first"], found[0]["only_second"], found[0]["p"]) == (0, 2, 0.5)


def test_the_headline_goes_from_the_first_chat_model_to_the_last() -> None:
    models = [facts("base", chats=False), facts("sft"), facts("rl"), facts("judge", "reward")]
    found = [share(m, "all", c, 10) for m, c in (("base", 0), ("sft", 4), ("rl", 7))] + [share("judge", "pairs", 9, 10)]
    assert headline(models, found) == {"label": "held-out answers right", "before": 40.0, "after": 70.0, "unit": "%"}
    assert headline(models[:2], found)["before"] == 0.0  # one chat model: from the base model
    assert headline(models[1:2], found)["before"] is None
    assert headline(models[3:], found) == {"label": "held-out pairs right", "before": None, "after": 90.0, "unit": "%"}


def test_figures_and_summary_name_every_score() -> None:
    made = results(ANSWERS)
    assert figures(made)["chat/sums"] == 50.0 and figures(made)["base/bits_per_byte"] == 1.25
    text = markdown(made)
    assert "| task | base | chat |" in text and "| names: made-up |" in text
    assert "- chat against base: +50.0 points" in text and "p = 0.5" in text


def test_the_page_escapes_what_models_say(tmp_path) -> None:
    hostile = "</pre><script>alert(1)</script><img src=http://evil/x>\x00\x1b[31m"
    answers = {"<b>m</b>": [row(1, reply=hostile, answer=hostile, messages=[{"role": "user", "content": hostile}])]}
    write_report(
        tmp_path, results(answers), answers, {}, [("sft <i>", [{"step": 1, "loss": 2}, {"step": 2, "loss": 1}])]
    )
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "<img" not in page and "<b>m</b>" not in page and "\x00" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert {p.name for p in tmp_path.glob("*.png")} == {"scores.png", "curve-sft--i--loss.png"}


def test_no_shares_no_bars() -> None:
    assert score_chart({"scores": [{**share("m", "bits_per_byte", 0, 0), "unit": "bits a byte"}]}) == []
