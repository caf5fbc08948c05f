"""Task files: prompts, metrics and mistakes; the metrics against their definitions, written out."""

from __future__ import annotations

import json
import math
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.likelihood import encode_pair
from llmctl.eval.stage import plan, run
from llmctl.eval.task_file import FilterList, FilterStep, Metric, read_task, shipped
from llmctl.eval.task_filters import filtered
from llmctl.eval.task_prompts import Prompt
from llmctl.eval.task_run import prepare
from llmctl.eval.task_scores import _exact, share_of
from llmctl.generate.engine import Engine
from llmctl.verify import gsm8k
from llmctl.workspace import Workspace

ROWS = [
    {"q": "Which is cheese?", "options": ["a brie", "a bread made of stone"], "right": 0},
    {"q": "Which is bread?", "options": ["small town", "bun"], "right": 1},
    {"q": "What is 2 + 3?", "options": ["5", "I don't know who that is", "bread and cheese"], "right": 0},
    {"q": "Who is that?", "options": ["famous", "is", "A small town is famous for its cheese"], "right": 2},
]
CHOICE = """\
task: cheese
dataset_path: json
data_files: {test: rows.jsonl}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{q}}\\nAnswer:"
doc_to_choice: options
doc_to_target: right
"""


def put(folder: Path, text: str, rows: list[dict[str, Any]] = ROWS, name: str = "task.yaml") -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / name).write_text(text)
    return str(folder / name)


def config(**more: Any) -> EvalConfig:
    return EvalConfig(models=["m"], precision="fp32", **more)


def loglikelihood(engine: Engine, before: str, after: str) -> tuple[float, bool]:
    """By the definition: the text as a whole, one pass, the log-probabilities of the tokens behind the prompt."""
    ids = engine.tokenizer.encode(before + after)
    start = len(engine.tokenizer.encode(before))
    with torch.no_grad():
        chances = engine.model.logits(engine.model(torch.tensor([ids])))[0].log_softmax(-1)
    told = [float(chances[i - 1, ids[i]]) for i in range(start, len(ids))]
    return sum(told), all(int(chances[i - 1].argmax()) == ids[i] for i in range(start, len(ids)))


@pytest.mark.parametrize("shots", [0, 2])
def test_multiple_choice_is_what_its_definition_says(
    shelf, workspace: Workspace, console: Console, tmp_path: Path, shots: int
) -> None:
    made = shelf.model("base", "pretrain", seed=3)
    path = put(tmp_path, CHOICE + f"num_fewshot: {shots}\nfewshot_split: test\nfewshot_config: {{sampler: first_n}}\n")
    report = run(EvalConfig(models=["base"], tasks=[path], precision="fp32"), workspace, console)
    results = json.loads(report.file("results.json").read_text())
    from llmctl.model.folder import load_model

    engine = Engine(*load_model(made.path), precision="fp32")
    acc, norm = [], []
    for row in ROWS:
        few = [r for r in ROWS if r != row][:shots]
        front = "".join(f"Question: {r['q']}\nAnswer: {r['options'][r['right']]}\n\n" for r in few)
        asked = f"{front}Question: {row['q']}\nAnswer:"
        found = [loglikelihood(engine, asked, " " + option)[0] for option in row["options"]]
        acc.append(found.index(max(found)) == row["right"])
        by_length = [f / len(option) for f, option in zip(found, row["options"], strict=True)]
        norm.append(by_length.index(max(by_length)) == row["right"])
    scores = {s["task"]: s for s in results["scores"]}
    assert (scores["cheese"]["value"], scores["cheese/acc_norm"]["value"]) == (sum(acc) / 4, sum(norm) / 4)
    rows = [json.loads(line) for line in report.file("items/base.jsonl").read_text().splitlines()]
    assert [r["correct"] for r in rows] == acc
    assert rows[-1]["loglikelihoods"] == pytest.approx(found, abs=1e-4)
    assert results["data"]["tasks"][0]["num_fewshot"] == shots and results["data"]["tasks"][0]["items"] == 4
    assert scores["cheese"]["stderr"] == pytest.approx(
        math.sqrt(sum((a - sum(acc) / 4) ** 2 for a in acc) / 3 / 4)
    )  # of the mean, from the sample's variance


def test_two_models_are_compared_item_by_item(shelf, workspace: Workspace, console: Console, tmp_path: Path) -> None:
    for n, name in enumerate(("one", "two")):
        shelf.model(name, "pretrain", seed=n)
    found = run(EvalConfig(models=["one", "two"], tasks=[put(tmp_path, CHOICE)], precision="fp32"), workspace, console)
    results = json.loads(found.file("results.json").read_text())
    assert [c["task"] for c in results["paired"]] == ["cheese"]
    assert results["headline"]["label"] == "cheese" and results["headline"]["before"] is not None
    assert "cheese/acc_norm" in found.file("summary.md").read_text()


def test_examples_stand_before_the_item_and_are_drawn_as_the_harness_draws_them(tmp_path: Path) -> None:
    import random

    rows = [{**ROWS[0], "q": f"Number {i}?"} for i in range(30)]
    path = put(tmp_path, CHOICE + "fewshot_split: test\nnum_fewshot: 3\ndescription: 'Answer.\n\n\n'\n", rows)
    rng = random.Random(1234)
    for n, document in enumerate(prepare(path, config()).documents):
        drawn = [r for r in rng.sample(rows, 4) if r != rows[n]][:3]
        front = "".join(f"Question: {r['q']}\nAnswer: a brie\n\n" for r in drawn)
        assert document.prompts[0].text == f"Answer.\n\n{front}Question: {rows[n]['q']}\nAnswer:"
    fewer = prepare(path, config(num_fewshot=1, limit=2))
    assert len(fewer.documents) == 2 and fewer.num_fewshot == 1
    assert fewer.prompts_sha256 != prepare(path, config(num_fewshot=2, limit=2)).prompts_sha256


def test_choices_that_stand_in_the_prompt(tmp_path: Path) -> None:
    rows = [{"sentence": "Sarah thanked Maria so _ was glad.", "option1": "Sarah", "option2": "Maria", "answer": "2"}]
    text = (
        shipped()["winogrande"].read_text().replace("allenai/winogrande", "json\ndata_files: {validation: rows.jsonl}")
    )
    (one,) = prepare(put(tmp_path, text, rows), config()).documents
    assert [p.text for p in one.prompts] == ["Sarah thanked Maria so Sarah", "Sarah thanked Maria so Maria"]
    assert one.continuations == [" was glad."] * 2 and one.gold == 1


def test_hellaswag_is_cleaned_as_published(tmp_path: Path) -> None:
    row = {"activity_label": "Baking", "ctx_a": "A man [header] bakes.", "ctx_b": "he", "label": "1",
           "endings": ["eats  it. [title] Then [step] stops.", "sleeps."]}  # fmt: skip
    text = shipped()["hellaswag"].read_text().replace("Rowan/hellaswag", "json\ndata_files: {validation: rows.jsonl}")
    (one,) = prepare(put(tmp_path, text, [row]), config()).documents
    assert one.prompts[0].text == "Baking: A man bakes. He"
    assert one.choices == ["eats it. . Then stops.".replace(". . ", ".. "), "sleeps."] and one.gold == 1


def test_written_answers_are_read_strictly_and_flexibly() -> None:
    """Against the same two rules in `verify`, which were written apart from these."""
    task = read_task("gsm8k")
    strict, flexible = task.settings.filter_list or []
    metric = task.metrics[0]
    for reply in ("So 3+4=7.\n#### 7", "It is $1,200.", "about 5 or 6", "no number", "#### -3,000.", "#### 7 and 8"):
        assert filtered([reply], strict, {}) == [gsm8k.strict(reply)]
        assert filtered([reply], flexible, {}) == [gsm8k.flexible(reply)]
        for answer in ("It is.\n#### 7", "#### 1200", "#### 8"):
            extracted = gsm8k.flexible(reply)
            assert _exact(extracted, answer, metric) == gsm8k.matches(extracted, answer)


def test_filters_choose_among_replies() -> None:
    def chain(*steps: dict[str, Any]) -> FilterList:
        return FilterList(name="x", filter=[FilterStep(**s) for s in steps])

    digits = {"function": "regex", "regex_pattern": r"(\d)"}
    assert filtered(["a 1", "2", "b 2"], chain(digits, {"function": "majority_vote"}), {}) == ["2"]
    assert filtered(["none", " A "], chain({"function": "take_first_k", "k": 2}, {"function": "lowercase"}), {}) == [
        "none",
        " a ",
    ]
    assert filtered(["none"], chain(digits), {}) == ["[invalid]"]
    assert filtered(["  x\n"], chain({"function": "custom"}), {"prompt": "def f():\n"}) == ["def f():\n  x\n"]
    assert _exact("Yes!", ["no", "YES"], Metric(metric="exact_match", ignore_case=True, ignore_punctuation=True)) == 1.0


PROGRAMS = """\
task: code
dataset_path: json
data_files: {test: rows.jsonl}
test_split: test
doc_to_text: "{{prompt}}"
doc_to_target: "{{test}}\\ncheck({{entry_point}})"
repeats: 4
generation_kwargs: {until: ["\\ndef"], max_gen_toks: 4, temperature: 1.0}
metric_list: [{metric: pass_at_k, k: [1, 3]}]
filter_list: [{name: program, filter: [{function: custom, filter_fn: build_predictions}]}]
"""


def test_programs_are_run_and_pass_at_k_is_unbiased(
    shelf, workspace: Workspace, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": "def f(x):\n", "test": "def check(g):\n    assert g(2) == 3\n", "entry_point": "f"}]
    bodies = cycle(["    return x + 1", "    return x", "    while True: pass", "    return 3"])
    monkeypatch.setattr("llmctl.eval.task_run.stopped", lambda *_: next(bodies))
    monkeypatch.setattr("llmctl.eval.task_run._SECONDS", 0.5)
    shelf.model("base", "pretrain")
    report = run(EvalConfig(models=["base"], tasks=[put(tmp_path, PROGRAMS, rows)]), workspace, console)
    scores = json.loads(report.file("results.json").read_text())["scores"]
    assert {s["metric"]: s["value"] for s in scores} == {"pass@1,program": 0.5, "pass@3,program": 1.0}
    with pytest.raises(UserError, match="judged by running them"):
        run(EvalConfig(out="b", models=["base"], tasks=[str(tmp_path / "task.yaml")], python=False), workspace, console)


@pytest.mark.parametrize("kind", ["loglikelihood", "loglikelihood_rolling"])
def test_continuations_and_whole_texts(
    shelf, workspace: Workspace, console: Console, tmp_path: Path, kind: str
) -> None:
    made = shelf.model("base", "pretrain", seed=5)
    text = "A small town is famous for its cheese. " * 12
    rows = [{"a": "What is 2 + 3? The answer", "b": " is 5."}, {"a": text, "b": text[:300]}]
    form = "task: t\ndataset_path: json\ndata_files: rows.jsonl\ndoc_to_text: a\ndoc_to_target: b\noutput_type: "
    report = run(
        EvalConfig(models=["base"], tasks=[put(tmp_path, form + kind, rows)], precision="fp32", loss_tokens=100),
        workspace,
        console,
    )
    scores = {s["metric"]: s for s in json.loads(report.file("results.json").read_text())["scores"]}
    from llmctl.model.folder import load_model

    engine = Engine(*load_model(made.path), precision="fp32")
    if kind == "loglikelihood":
        first = loglikelihood(engine, rows[0]["a"], rows[0]["b"])
        mine = json.loads(report.file("items/base.jsonl").read_text().splitlines()[0])["metrics"]
        assert mine["perplexity"] == pytest.approx(first[0], abs=1e-4) and mine["acc"] == first[1]
        assert scores["perplexity"]["unit"] == "perplexity"
        return
    total, size = 0.0, 0
    for row in rows:
        ids = [engine.tokenizer.eos_id, *engine.tokenizer.encode(row["b"])]
        with torch.no_grad():
            chances = engine.model.logits(engine.model(torch.tensor([ids])))[0].log_softmax(-1)
        total += sum(float(chances[i - 1, ids[i]]) for i in range(1, len(ids)))
        size += len(row["b"])
    assert scores["bits_per_byte"]["value"] == pytest.approx(-total / size / math.log(2), rel=1e-5)
    assert scores["bits_per_byte"]["low"] <= scores["bits_per_byte"]["value"] <= scores["bits_per_byte"]["high"]


def test_a_prompt_that_is_too_long_loses_its_beginning(tokenizer) -> None:
    engine = Engine(tiny(tokenizer.vocab_size), tokenizer, "fp32")
    ids, start = encode_pair(engine, Prompt("bread " * 400), " cheese")
    assert len(ids) == 257 and tokenizer.decode(ids[start:]) in ("  cheese", " cheese")
    assert encode_pair(engine, Prompt(""), "cheese")[0][0] == tokenizer.eos_id


def test_a_chat_model_is_asked_in_its_format(shelf, workspace: Workspace, console: Console, tmp_path: Path) -> None:
    shelf.model("chat", "sft")
    path = put(tmp_path, CHOICE + "num_fewshot: 1\nfewshot_split: test\n")
    settings = {"tasks": [path], "apply_chat_template": True, "precision": "fp32"}
    document = prepare(path, config(apply_chat_template=True)).documents[0]
    assert [m["role"] for m in document.prompts[0].messages or []] == ["user", "assistant", "user"]
    assert document.continuations[0] == "a brie"  # no space behind the header of a turn
    report = run(EvalConfig(models=["chat"], **settings), workspace, console)
    assert json.loads(report.file("results.json").read_text())["data"]["tasks"][0]["chat"] is True


def test_a_model_without_a_chat_format_is_told_so(
    shelf, workspace: Workspace, console: Console, tmp_path: Path
) -> None:
    from llmctl.model.folder import save_model
    from llmctl.model.tokenizer import Tokenizer

    added = [t for t in shelf.tokenizer.spec["added_tokens"] if t["content"] == "<|endoftext|>"]
    plain = Tokenizer({**shelf.tokenizer.spec, "added_tokens": added}, {"eos_token": "<|endoftext|>"})
    save_model(tmp_path / "plain", tiny(shelf.tokenizer.vocab_size), plain)
    settings = {"tasks": [put(tmp_path, CHOICE)], "apply_chat_template": True}
    with pytest.raises(UserError, match="no chat tokens"):
        run(EvalConfig(models=[str(tmp_path / "plain")], **settings), workspace, console)


def test_a_killed_task_goes_on_and_ends_with_the_same_bytes(
    shelf, workspace: Workspace, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmctl.eval.task_run._PART", 2)
    shelf.model("base", "pretrain")
    settings = {"models": ["base"], "tasks": [put(tmp_path, CHOICE)], "precision": "fp32"}
    whole = run(EvalConfig(out="whole", **settings), workspace, console)
    calls: list[int] = []
    real = Engine.likelihoods

    def killed(self: Engine, groups: Any) -> Any:
        calls.append(len(groups))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, groups)

    monkeypatch.setattr(Engine, "likelihoods", killed)
    with pytest.raises(KeyboardInterrupt):
        run(EvalConfig(out="cut", **settings), workspace, console)
    assert run(EvalConfig(out="cut", **settings), workspace, console).digest == whole.digest
    assert calls == [2, 2, 2]  # the first part was not asked again


def test_all_mistakes_of_a_file_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """\
task: cheese and wine
dataset_path: json
data_files: {test: rows.jsonl}
output_type: multiple_choice
test_splitt: test
doc_to_text: "Question: {{q"
doc_to_target: right
metric_list:
  - metric: accuracy
filter_list:
  - name: x
    filter: [{function: regex, regex_pattern: "(("}]
"""
    with pytest.raises(UserError) as caught:
        read_task(put(tmp_path, text))
    told = str(caught.value)
    for line, what in (
        (1, "task"),
        (5, "unknown key"),
        (6, "doc_to_text is no"),
        (9, "no metric"),
        (12, "regex_pattern"),
    ):
        assert any(f"task.yaml:{line}: " in shown and what in shown for shown in told.splitlines())
    assert "'doc_to_choice' is missing" in told and "did you mean 'test_split'" in told


@pytest.mark.parametrize(
    ("change", "rows", "told"),
    [
        (("options\n", "'{{choices}}'\n"), ROWS, "item 1: a template fails on it: 'choices' is undefined"),
        (("{{q}}", "{{q[9000].x}}"), ROWS, "a template fails on it"),
        (("{{q}}", "{{q.__class__.__mro__}}"), ROWS, "a template fails on it: access to attribute '__class__'"),
        (("test_split: test", "test_split: tests"), ROWS, "no split 'tests' in data_files .did you mean 'test'"),
        (("x", "x"), [], "the split 'test' is empty"),
        (("rows.jsonl", "none.jsonl"), ROWS, "no such file"),
        (("doc_to_target: right", "doc_to_target: right\nnum_fewshot: 9"), ROWS, "9 examples are wanted"),
        (("json\ndata_files: {test: rows.jsonl}", "nobody/nothing"), ROWS, "cannot be had|no such data set"),
        (("{{q}}", "!function utils.f"), ROWS, "calls the Python function 'utils.f'"),
        (("json\ndata_files: {test: rows.jsonl}", "json"), ROWS, "there are no data_files"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_task_is_one_line(tmp_path: Path, change, rows, told: str) -> None:
    path = put(tmp_path, CHOICE.replace(*change), rows)
    with pytest.raises(UserError, match=told) as caught:
        prepare(path, config())
    assert len(str(caught.value).splitlines()) <= 2


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    path = put(tmp_path, CHOICE)
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n{\n")
    with pytest.raises(UserError, match=r"rows\.jsonl:2: not JSON"):
        prepare(path, config())


def test_an_included_file_is_the_ground_and_its_lines_are_named(tmp_path: Path) -> None:
    put(tmp_path, CHOICE.replace("doc_to_choice", "doc_to_chioce"), name="ground.yaml")
    path = put(tmp_path, "include: ground.yaml\ntask: mine\n")
    with pytest.raises(UserError, match=r"ground\.yaml:7: unknown key 'doc_to_chioce'"):
        read_task(path)
    put(tmp_path, CHOICE, name="ground.yaml")
    assert read_task(path).name == "mine"


def test_every_task_that_comes_along_is_whole_and_a_changed_file_is_measured_again(shelf, workspace, tmp_path) -> None:
    assert {"arc_easy", "hellaswag", "gsm8k", "humaneval", "lambada_openai"} <= set(shipped())
    assert {read_task(name).name for name in shipped()} == set(shipped())
    shelf.model("base", "pretrain")
    path = put(tmp_path, CHOICE)
    settings = EvalConfig(models=["base"], tasks=[path])
    before = workspace.fingerprint(settings)
    assert ("task: cheese", "4 items, 0 examples") in plan(settings, workspace)
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    assert workspace.fingerprint(settings) != before


def test_a_mean_that_is_no_share_has_a_bootstrap_interval() -> None:
    found = share_of([0.25, 0.5, 1.0, 0.0] * 25, seed=0)
    assert found["correct"] is None and found["low"] < found["value"] < found["high"]
    normal = 1.96 * found["stderr"]
    assert found["high"] - found["low"] == pytest.approx(2 * normal, rel=0.1)


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("DatasetNotFoundError('Dataset a/b is a gated dataset on the Hub.')", "its owner gives it on request only"),
        ("DatasetNotFoundError('a/b does not exist')", "there is no such data set on the hub"),
        ("ConnectionError('no route to host')", "it cannot be had: no route to host"),
        ("ValueError('Unknown split \"test\".')", "Unknown split"),
    ],
)
def test_a_data_set_of_the_hub_that_cannot_be_had(
    raised: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with what to do, whatever the hub's library raises."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    def fail(*_: Any, **__: Any) -> None:
        raise eval(raised, {"DatasetNotFoundError": DatasetNotFoundError})

    monkeypatch.setattr(datasets, "load_dataset", fail)
    (tmp_path / "t.yaml").write_text(
        "task: t\ndataset_path: a/b\noutput_type: multiple_choice\ntest_split: test\n"
        "doc_to_text: q\ndoc_to_choice: c\ndoc_to_target: g\n"
    )
    with pytest.raises(UserError) as caught:
        prepare(str(tmp_path / "t.yaml"), EvalConfig(models=["m"]))
    assert message in caught.value.what and "data set a/b" in caught.value.where and "\n" not in caught.value.what
    assert caught.value.fix or "split" in message
