"""lm-evaluation-harness: its own model on the same weights and task files gives our scores, to the digit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from llmctl.console import Console
from llmctl.errors import UserError
from llmctl.eval.config import EvalConfig
from llmctl.eval.stage import run
from llmctl.workspace import Workspace

HEAD = "dataset_path: json\ndataset_kwargs: {{data_files: {{test: {rows}}}}}\ntest_split: test\n"
TASKS = {
    "choice": "output_type: multiple_choice\nfewshot_split: test\nnum_fewshot: 2\ndescription: 'Answer. '\n"
    'doc_to_text: "Question: {{q}}\\nAnswer:"\ndoc_to_choice: options\ndoc_to_target: right\n'
    "metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}]\n",
    "prompts": "output_type: multiple_choice\n"
    "doc_to_text: \"{{right}}\"\ndoc_to_choice: options\ndoc_to_target: 'famous for its cheese'\n"
    "metric_list: [{metric: acc}]\n",
    "last": "output_type: loglikelihood\nmetric_list: [{metric: perplexity}, {metric: acc}]\n"
    'doc_to_text: "{{q}} "\ndoc_to_target: "{{options[0]}}"\n',
    "text": "output_type: loglikelihood_rolling\ndoc_to_text: ''\n"
    'doc_to_target: "{{q * 40}}"\nmetric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]\n',
    "written": "output_type: generate_until\nnum_fewshot: 1\nfewshot_split: test\nfewshot_config: {sampler: first_n}\n"
    'doc_to_text: "{{q}}"\ndoc_to_target: "{{options[0]}}"\n'
    "generation_kwargs: {until: ['e', '?'], max_gen_toks: 12}\n"
    "metric_list: [{metric: exact_match, ignore_case: true}]\n"
    "filter_list:\n- name: word\n  filter: [{function: regex, regex_pattern: '(\\w+)'}, {function: take_first}]\n"
    "- name: none\n  filter: [{function: take_first}]\n",
}


def put(folder: Path) -> list[str]:
    words = ["cheese", "bread", "town", "small", "famous", "answer", "know", "who", "that"]
    rows: list[dict[str, Any]] = [
        {
            "q": f"Who is {words[i % 9]} {words[i * 4 % 9]}?",
            "options": [words[(i + k) % 9] + " town" * (k % 2) for k in range(3)],
            "right": i % 3,
        }
        for i in range(14)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(f"task: my_{name}\n" + HEAD.format(rows=folder / "rows.jsonl") + text)
    return [str(folder / f"{name}.yaml") for name in TASKS]


@pytest.mark.slow
@pytest.mark.parametrize("chat", [False, True])
def test_ours_the_harness_on_our_engine_and_the_harness_alone_agree(
    shelf, workspace: Workspace, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat: bool
) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    pytest.importorskip("accelerate")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    made, files = shelf.model("chat", "sft", seed=4), put(tmp_path)
    files = files[:1] if chat else files
    settings = {"models": ["chat"], "precision": "fp32", "apply_chat_template": chat, "python": False, "search": False}
    found = {}
    for name, asked in (("own", {"tasks": files}), ("through", {"harness": files})):
        report = run(EvalConfig(out=name, **settings, **asked), workspace, console)
        scores = json.loads(report.file("results.json").read_text())["scores"]
        found[name] = {(s["task"].partition("/")[0], s["metric"]): s["value"] for s in scores}
    theirs = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={made.path},dtype=float32,max_length=256",
        tasks=files,
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
        apply_chat_template=chat,
    )["results"]
    compared = 0
    for task, values in theirs.items():
        for key, value in values.items():
            metric, comma, chain = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                ours = task, metric if chain == "none" else key
                assert found["own"][ours] == pytest.approx(float(value), rel=1e-5), ours
                assert found["through"][ours] == pytest.approx(float(value), rel=1e-5), ours
                compared += 1
    assert compared == (3 if chat else 10)


def test_without_the_package_it_says_what_to_install(
    shelf, workspace: Workspace, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    shelf.model("base", "pretrain")
    with pytest.raises(UserError, match="pip install"):
        run(EvalConfig(models=["base"], harness=["hellaswag"]), workspace, console)


def test_an_unknown_task_and_absent_data_are_one_line(shelf, workspace: Workspace, console: Console) -> None:
    pytest.importorskip("lm_eval")
    shelf.model("base", "pretrain")
    with pytest.raises(UserError, match="lm-evaluation-harness"):
        run(EvalConfig(models=["base"], harness=["no_such_task"], precision="fp32"), workspace, console)
    with pytest.raises(UserError, match="cannot be had"):
        run(EvalConfig(models=["base"], harness=["arc_easy"], precision="fp32"), workspace, console)
